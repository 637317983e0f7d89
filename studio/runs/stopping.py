"""A stop request followed up with signals, when their stated delays have passed.

The trainer sees the stop file at the end of its step and saves. While there is nothing to save yet (it imports, downloads, reads, loads) or
nothing is to be kept (discard), SIGTERM follows after 1 s; else after 60 s (STUDIO_STOP_TERM) or the time of three of its own steps, whichever
is longer, but 600 s at most; during a save after 600 s. 5 s after SIGTERM comes SIGKILL, to the trainer's group.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from studio import crash
from studio.run import Run
from studio.runs import launch
from studio.runs.summary import WORKING

TERM_EARLY, TERM_SAVING, KILL_AFTER = 1.0, 600.0, 5.0  # seconds; see above
TERM_AFTER = float(os.environ.get("STUDIO_STOP_TERM", 60))


class Stopping:
    """Looks at a run's stop file and signals its trainer."""

    def __init__(self, run: Run, trainer: subprocess.Popen[bytes]):
        self.run, self.trainer = run, trainer
        self.is_remote = launch.is_remote(
            run
        )  # the stop has a way to go, and the trainer there is signalled by the supervisor there
        self.asked: float | None = None
        self.terminated: float | None = None

    def look(self, now: float, state_event: dict[str, Any], pace: float = 0.0) -> None:
        """turn: the attempt's last phase or end; pace: seconds between its last two points of the curve."""
        how = self.run.stop_request()
        if how is None:
            return
        if self.asked is None:
            self.asked = now
            crash.point("supervise.stop")
        if self.terminated is None and now - self.asked >= (
            TERM_SAVING if self.is_remote else patience(how, state_event, pace)
        ):
            self.terminated = now
            group(self.trainer, signal.SIGTERM)
        elif self.terminated is not None and now - self.terminated >= KILL_AFTER:
            group(self.trainer, signal.SIGKILL)


def patience(how: str, state_event: dict[str, Any], pace: float) -> float:
    """Seconds from the request to SIGTERM."""
    if state_event["kind"] == "end":
        return TERM_AFTER
    if how == "discard" or state_event["name"] not in WORKING:
        return TERM_EARLY
    return TERM_SAVING if state_event["name"] == "saving" else min(TERM_SAVING, max(TERM_AFTER, 3 * pace))


def group(trainer: subprocess.Popen[bytes], number: int) -> None:
    """A signal to the trainer's group: its id is ours to use as long as the trainer is unreaped or the group has members."""
    try:
        os.killpg(trainer.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
