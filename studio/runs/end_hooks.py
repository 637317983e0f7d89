"""What the environment asks to be done once a run has ended: STUDIO_WEBHOOK hears of it, STUDIO_PAUSE_SPACE lets the Space rest.

A run that begins while one of them is set gets a mark, which goes when all is done. The supervisor does it behind the end of its run, when
the queue has moved on; for a supervisor that was killed the page or the next supervisor does. Whatever fails here leaves a note and no more.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from studio.events import END_STATES, Lock
from studio.home import subfolder
from studio.run import ALIVE, Run, runs, summary
from studio.runs import backup

PATIENCE = 10.0  # seconds a webhook has for its answer
ORDERS = ("STUDIO_WEBHOOK", "STUDIO_PAUSE_SPACE")
MARK = ".afterwards"  # in a run's folder: something is still to be done behind its end
TOLD = (
    "id",
    "attempt",
    "name",
    "state",
    "reason",
    "cause",
    "action",
    "model",
    "method",
    "data",
    "step",
    "steps",
    "train_loss",
    "eval_loss",
    "eval_loss_before",
    "best_eval_loss",
    "seconds",
    "peak_memory",
)


def begin(run: Run) -> None:
    """At the start of an attempt: mark what is to be done behind its end, if anything is."""
    if any(os.environ.get(name) for name in ORDERS):
        (run.folder / MARK).touch()


def run_pending(run: Run) -> None:
    """Everything there is to do behind the end of a run, once: whoever comes second finds no mark."""
    mark, turn = run.folder / MARK, Lock(subfolder("locks") / "afterwards")
    if not mark.exists() or run.alive() or run.state() not in END_STATES:  # paused or extended: it goes on
        return
    if not turn.acquire(wait=2 * PATIENCE):
        return
    try:
        if mark.exists():
            webhook(run)
            mark.unlink(missing_ok=True)
            rest(run)
    finally:
        turn.release()


def catch_up() -> None:
    """What supervisors that were killed did not come to."""
    for run in runs():
        if (run.folder / MARK).exists():
            run_pending(run)


def webhook(run: Run) -> None:
    """Post {"event": "run", "run": {…}} to STUDIO_WEBHOOK, as JSON; the names are those of `python -m studio show`.

    Whoever is killed between the post and the removal of the mark leaves it to be posted again: the same id and attempt.
    """
    address = os.environ.get("STUDIO_WEBHOOK", "")
    if not address:
        return
    import urllib.request  # late: few runs are told of

    told = summary(run)
    body = json.dumps({"event": "run", "run": {name: told.get(name) for name in TOLD}}).encode()
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            raise ValueError("it is no http address")
        post = urllib.request.Request(
            address, body, {"Content-Type": "application/json", "User-Agent": "fine-tuning-studio"}
        )
        urllib.request.urlopen(post, timeout=PATIENCE).close()
    except (OSError, ValueError) as error:  # the address itself may hold a secret: it is not repeated
        reason = getattr(error, "reason", None) or (
            str(error) if isinstance(error, ValueError) else type(error).__name__
        )
        run.append(
            "note",
            level="warning",
            text=f"The webhook was not reached: {reason}",
            hint="Look at STUDIO_WEBHOOK; the run itself is as it was.",
        )


def rest(run: Run) -> None:
    """Pause the Space where STUDIO_PAUSE_SPACE is set, when nothing runs or waits any more and what was learnt is kept somewhere."""
    space, token = os.environ.get("SPACE_ID"), os.environ.get("HF_TOKEN")
    if not space or os.environ.get("STUDIO_PAUSE_SPACE", "").lower() not in ("1", "true", "yes", "on"):
        return
    if any(_waits(other) for other in runs()):
        return
    if not backup.has_persistent_storage() and not backup.ensure_copied(run):
        _warn(
            run,
            "The Space was not paused: its disk would be emptied.",
            "Attach a storage bucket at /data, or set STUDIO_BACKUP.",
        )
    elif not token:
        _warn(run, "The Space was not paused: no token is set.", "Set a secret HF_TOKEN that may write to this Space.")
    else:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            HfApi().pause_space(space, token=token)
        except (HfHubHTTPError, OSError) as error:
            _warn(
                run,
                f"The Space was not paused: {type(error).__name__}.",
                "Its token must be allowed to write to this Space.",
            )


def _waits(run: Run) -> bool:
    state: Any = run.state()
    return state in ALIVE or (state == "queued" and not (run.state_event() or {}).get("hold"))


def _warn(run: Run, text: str, hint: str) -> None:
    run.append("note", level="warning", text=text, hint=hint)
