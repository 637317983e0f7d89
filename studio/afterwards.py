"""What the environment asks to be done once a run has ended: STUDIO_WEBHOOK hears of it, STUDIO_PAUSE_SPACE lets the Space rest.

Called by the supervisor behind the end of its run, when the queue has moved on; whatever fails here leaves a note and no more.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from studio import backup
from studio.events import END_STATES
from studio.run import ALIVE, Run, runs, summary

PATIENCE = 10.0  # seconds a webhook has for its answer
TOLD = ("id", "name", "state", "cause", "action", "model", "method", "data", "step", "steps", "train_loss", "eval_loss", "eval_loss_before",
        "best_eval_loss", "seconds", "peak_memory")


def settle(run: Run) -> None:
    """Everything there is to do behind the end of a run."""
    if run.state() not in END_STATES:
        return  # paused or extended: it goes on
    webhook(run)
    rest(run)


def webhook(run: Run) -> None:
    """Post {"event": "run", "run": {…}} to STUDIO_WEBHOOK, as JSON; the names are those of `python -m studio show`."""
    address = os.environ.get("STUDIO_WEBHOOK", "")
    if not address:
        return
    told = summary(run)
    body = json.dumps({"event": "run", "run": {name: told.get(name) for name in TOLD}}).encode()
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            raise ValueError("it is no http address")
        post = urllib.request.Request(address, body, {"Content-Type": "application/json", "User-Agent": "fine-tuning-studio"})
        urllib.request.urlopen(post, timeout=PATIENCE).close()
    except (OSError, ValueError, urllib.error.URLError) as error:  # the address itself may hold a secret: it is not repeated
        reason = getattr(error, "reason", None) or (str(error) if isinstance(error, ValueError) else type(error).__name__)
        run.append("note", level="warning", text=f"The webhook was not reached: {reason}", hint="Look at STUDIO_WEBHOOK; the run itself is as it was.")


def rest(run: Run) -> None:
    """Pause the Space where STUDIO_PAUSE_SPACE is set, when nothing runs or waits any more and what was learnt is kept somewhere."""
    space, token = os.environ.get("SPACE_ID"), os.environ.get("HF_TOKEN")
    if not space or os.environ.get("STUDIO_PAUSE_SPACE", "").lower() not in ("1", "true", "yes", "on"):
        return
    if any(_waits(other) for other in runs()):
        return
    if not backup.lasting() and not backup.copied(run):
        _warn(run, "The Space was not paused: its disk would be emptied.", "Attach a storage bucket at /data, or set STUDIO_BACKUP.")
    elif not token:
        _warn(run, "The Space was not paused: no token is set.", "Set a secret HF_TOKEN that may write to this Space.")
    else:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
        try:
            HfApi().pause_space(space, token=token)
        except (HfHubHTTPError, OSError) as error:
            _warn(run, f"The Space was not paused: {type(error).__name__}.", "Its token must be allowed to write to this Space.")


def _waits(run: Run) -> bool:
    state: Any = run.state()
    return state in ALIVE or (state == "queued" and not (run.turn() or {}).get("hold"))


def _warn(run: Run, text: str, hint: str) -> None:
    run.append("note", level="warning", text=text, hint=hint)
