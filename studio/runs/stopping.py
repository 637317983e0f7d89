"""Signals the trainer when a stop request has not been followed within the delays stated here.

The trainer reads the stop file at the end of each step, then saves and ends. Before the first step, or if nothing
is to be kept (discard), it gets SIGTERM after 1 s; else after 60 s (STUDIO_STOP_TERM) or three of its own steps,
whichever is longer, but 600 s at most; during a save after 600 s. 5 s after SIGTERM its process group gets
SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from studio import crash
from studio.run import Run
from studio.runs import launch
from studio.runs.state import WORKING

TERM_NOW, TERM_SAVING, KILL_AFTER = 1.0, 600.0, 5.0  # seconds; see above
TERM_AFTER = float(os.environ.get("STUDIO_STOP_TERM", 60))


class Stopping:
    """Checks a run's stop file and signals its trainer."""

    def __init__(self, run: Run, trainer: subprocess.Popen[bytes]):
        self.run, self.trainer = run, trainer
        self.is_remote = launch.is_remote(run)  # then the remote supervisor signals the remote trainer
        self.requested: float | None = None
        self.terminated: float | None = None

    def check(self, now: float, state_event: dict[str, Any], seconds_per_step: float = 0.0) -> None:
        """Send the signal that is due, if any. state_event: the attempt's last phase or end event."""
        stop_mode = self.run.stop_request()
        if stop_mode is None:
            return
        if self.requested is None:
            self.requested = now
            crash.point("supervise.stop")
        delay = TERM_SAVING if self.is_remote else seconds_to_sigterm(stop_mode, state_event, seconds_per_step)
        if self.terminated is None and now - self.requested >= delay:
            self.terminated = now
            signal_group(self.trainer, signal.SIGTERM)
        elif self.terminated is not None and now - self.terminated >= KILL_AFTER:
            signal_group(self.trainer, signal.SIGKILL)


def seconds_to_sigterm(stop_mode: str, state_event: dict[str, Any], seconds_per_step: float) -> float:
    """Seconds from the request to SIGTERM."""
    if state_event["kind"] == "end":
        return TERM_AFTER
    if stop_mode == "discard" or state_event["name"] not in WORKING:
        return TERM_NOW
    return TERM_SAVING if state_event["name"] == "saving" else min(TERM_SAVING, max(TERM_AFTER, 3 * seconds_per_step))


def signal_group(trainer: subprocess.Popen[bytes], number: int) -> None:
    """Signal the trainer's process group, whose id is not reused while the trainer is unreaped or it has members."""
    try:
        os.killpg(trainer.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
