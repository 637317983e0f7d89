"""What a crash left of a run is put in order by whoever looks: its end written, its orphans ended, its halves removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from studio import events, process
from studio.events import FULL, Lock
from studio.runs.diagnosis import diagnose_lost

if TYPE_CHECKING:
    from studio.run import Run


def reconcile(run: Run) -> str:
    """Write down the end of a run that has none though nobody holds its lock, and end what is left of its trainer. Returns the state."""
    state = run.state()
    if state != "lost" or not os.access(run.folder, os.W_OK):
        return state
    with alone(run) as mine:  # else a supervisor is just starting, or somebody else writes it down
        try:
            if mine:
                events.close_torn(run.events_file)
            if (
                mine
                and run.state(alive=False) == "lost"
                and (run.state_event() or {}).get("kind") != "end"
                and end_orphans(run)
            ):
                _write_lost(run)
        except OSError as error:
            if error.errno not in FULL:
                raise  # else there is no room for the word; the state is lost all the same
    return run.state()


@contextmanager
def alone(run: Run, wait: float = 0.0) -> Iterator[bool]:
    """True inside when nobody supervises this run and nobody else puts it in order, and none can begin to.

    The run's lock is held shared: that keeps a supervisor out, but is not taken for one by who asks whether the run is alive.
    """
    turn, lock = Lock(run.folder / "recovery.lock"), Lock(run.lock)
    try:
        yield turn.acquire(wait) and lock.acquire(wait, shared=True)
    finally:
        lock.release()
        turn.release()


def _write_lost(run: Run) -> None:
    how = run.stop_request()
    if how in ("keep", "discard", "pause"):
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
    """End trainer processes that outlived their supervisor. They are known by the lock they hold, never by an id. True: none left."""
    if not events.is_locked(run.trainer_lock):
        return True
    return process.kill_all(lambda: process.holders(run.trainer_lock)) and not events.is_locked(run.trainer_lock)


def unfinished(run: Run) -> bool:
    """Whether something still stands here that goes with the end of an attempt."""
    return (run.folder / ".reserve").exists() or run.stop_file.exists()


def tidy(run: Run) -> None:
    """Remove files that a crash left half written: .NAME.PID.tmp of a process that is gone."""
    for file in run.folder.glob(".*.tmp"):
        pid = file.name.split(".")[-2]
        if not pid.isdigit() or not _writes(int(pid), file):
            file.unlink(missing_ok=True)


def _writes(pid: int, file: Path) -> bool:
    """Whether the process that began this file may still be at it: it lives, and was there before the file was."""
    try:
        return psutil.Process(pid).create_time() <= file.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
