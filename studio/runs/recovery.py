"""Cleans up after a crashed run: writes its end event, kills orphaned processes, removes partial files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studio import events, process
from studio.events import FULL, Lock
from studio.runs.diagnosis import diagnose_lost
from studio.runs.folder import Run


def reconcile(run: Run) -> str:
    """Write the end event of a lost run and kill what is left of its trainer. Returns the state."""
    state = run.state()
    if state != "lost" or not os.access(run.folder, os.W_OK):
        return state
    with exclusive(run) as locked:  # else a supervisor is starting, or another process is recovering it
        try:
            if locked:
                events.close_torn(run.events_file)
            if (
                locked
                and run.state(alive=False) == "lost"
                and (run.state_event() or {}).get("kind") != "end"
                and end_orphans(run)
            ):
                _write_lost(run)
        except OSError as error:
            if error.errno not in FULL:
                raise  # on a full disk the state is "lost" even without an end event
    return run.state()


@contextmanager
def exclusive(run: Run, wait: float = 0.0) -> Iterator[bool]:
    """Yields whether this process alone may change the run: no supervisor and no other recovery, nor can one start.

    The run's lock is held shared, which keeps supervisors out without making the run look alive.
    """
    recovery_lock, lock = Lock(run.folder / "recovery.lock"), Lock(run.lock)
    try:
        yield recovery_lock.acquire(wait) and lock.acquire(wait, shared=True)
    finally:
        lock.release()
        recovery_lock.release()


def _write_lost(run: Run) -> None:
    if run.stop_request() in ("keep", "discard", "pause"):
        run.append(
            "end",
            state="stopped",
            attempt=run.attempt(),
            cause="Stopped as asked; its supervisor was gone already.",
            action="Resume it to go on from its last checkpoint.",
        )
        return
    cause = diagnose_lost(run.log, run.state_event() is None)
    run.append("end", state="lost", attempt=run.attempt(), cause=cause.message, action=cause.action, reason=cause.kind)


def end_orphans(run: Run) -> bool:
    """Kill trainer processes that outlived their supervisor, found by the lock they hold. True if none is left."""
    if not events.is_locked(run.trainer_lock):
        return True
    return process.kill_all(lambda: process.holders(run.trainer_lock)) and not events.is_locked(run.trainer_lock)


def unfinished(run: Run) -> bool:
    """Whether queue.finalize has not completed for the last attempt."""
    return (run.folder / ".reserve").exists() or run.stop_file.exists()


def tidy(run: Run) -> None:
    """Remove temporary files (.NAME.PID.tmp) of processes that have ended."""
    for file in run.folder.glob(".*.tmp"):
        pid = file.name.split(".")[-2]
        if not pid.isdigit() or not _writes(int(pid), file):
            file.unlink(missing_ok=True)


def _writes(pid: int, file: Path) -> bool:
    """Whether the process that created the file may still be writing it: it is alive and older than the file."""
    try:
        return psutil.Process(pid).create_time() <= file.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
