"""Hooks that run after a run has ended: STUDIO_WEBHOOK is called, STUDIO_PAUSE_SPACE pauses the Space.

A run that starts while one of them is set gets a marker file, removed once the hooks have run. The supervisor
runs them after its run's end and after advancing the queue; if it was killed, the page or the next supervisor
does. A failure only leaves a note in the run's events.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from studio.errors import reason_of
from studio.events import END_STATES, Lock
from studio.home import subfolder
from studio.run import ALIVE, Run, runs, summary
from studio.runs import backup

WEBHOOK_TIMEOUT = 10.0  # seconds until a webhook must have answered
VARIABLES = ("STUDIO_WEBHOOK", "STUDIO_PAUSE_SPACE")
MARKER = ".afterwards"  # in a run's folder: its hooks have not run yet
WEBHOOK_FIELDS = (
    "id", "attempt", "name", "state", "reason", "cause", "action", "model", "method", "data", "step", "steps",
    "train_loss", "eval_loss", "eval_loss_before", "best_eval_loss", "seconds", "peak_memory"
)  # fmt: skip


def begin(run: Run) -> None:
    """Mark the run at the start of an attempt if any hook is set."""
    if any(os.environ.get(name) for name in VARIABLES):
        (run.folder / MARKER).touch()


def run_pending(run: Run) -> None:
    """Run the hooks of an ended run, once: a second caller finds no marker."""
    marker, lock = run.folder / MARKER, Lock(subfolder("locks") / "afterwards")
    if not marker.exists() or run.alive() or run.state() not in END_STATES:  # paused or extended: not the end
        return
    if not lock.acquire(wait=2 * WEBHOOK_TIMEOUT):
        return
    try:
        if marker.exists():
            webhook(run)
            marker.unlink(missing_ok=True)
            pause_space(run)
    finally:
        lock.release()


def catch_up() -> None:
    """Run the hooks that killed supervisors left."""
    for run in runs():
        if (run.folder / MARKER).exists():
            run_pending(run)


def webhook(run: Run) -> None:
    """Post {"event": "run", "run": {…}} as JSON to STUDIO_WEBHOOK; the keys are those of `python -m studio show`.

    It may be posted twice (same id and attempt) if the process is killed before the marker is removed.
    """
    address = os.environ.get("STUDIO_WEBHOOK", "")
    if not address:
        return
    import urllib.request  # late: rarely needed

    run_summary = summary(run)
    body = json.dumps({"event": "run", "run": {name: run_summary.get(name) for name in WEBHOOK_FIELDS}}).encode()
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            raise ValueError("it is no http address")
        request = urllib.request.Request(
            address, body, {"Content-Type": "application/json", "User-Agent": "fine-tuning-studio"}
        )
        urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT).close()
    except (OSError, ValueError) as error:  # the address itself may hold a secret: it is not repeated
        reason = getattr(error, "reason", None) or (
            str(error) if isinstance(error, ValueError) else type(error).__name__
        )
        run.note(f"The webhook was not reached: {reason}", "Look at STUDIO_WEBHOOK; the run itself is as it was.")


def pause_space(run: Run) -> None:
    """Pause the Space if STUDIO_PAUSE_SPACE is set, no run is alive or waiting and the result is persistent."""
    space, token = os.environ.get("SPACE_ID"), os.environ.get("HF_TOKEN")
    if not space or os.environ.get("STUDIO_PAUSE_SPACE", "").lower() not in ("1", "true", "yes", "on"):
        return
    if any(_is_pending(other) for other in runs()):
        return
    if not backup.has_persistent_storage() and not backup.ensure_copied(run):
        hint = "Attach a storage bucket at /data, or set STUDIO_BACKUP."
        run.note("The Space was not paused: its disk would be emptied.", hint)
    elif not token:
        run.note("The Space was not paused: no token is set.", "Set a secret HF_TOKEN that may write to this Space.")
    else:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            HfApi().pause_space(space, token=token)
        except (HfHubHTTPError, OSError) as error:
            hint = "Its token must be allowed to write to this Space."
            run.note(f"The Space was not paused: {reason_of(error)}.", hint)


def _is_pending(run: Run) -> bool:
    state: Any = run.state()
    return state in ALIVE or (state == "queued" and not (run.state_event() or {}).get("hold"))
