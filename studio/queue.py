"""The queue: one run at a time per device. It has no server: whoever starts, ends or lists runs advances it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio import child_process, crash, credentials, events
from studio.config import RunConfig
from studio.errors import RunError, StudioError, reason_of
from studio.events import END_STATES, Lock
from studio.home import PROJECT, home, subfolder
from studio.run import ALIVE, Run, create, runs, sweep
from studio.runs import claim, continuation, launch, recovery, sequence

START_WAIT = 60.0  # seconds a supervisor may take to start
UP, BUSY = 0, 3  # exit statuses of studio.supervise --detach: it holds the run's lock; no device is free


def submit(config: RunConfig, begun: Path | None = None) -> Run:
    """Queue an order and start it if a device is free. begun: a folder with checkpoints and events to go on from."""
    with _queue_lock():
        run = create(config, order=_last_position(), begun=begun)
    advance()
    return run


def adopt(config: RunConfig, folder: Path) -> Run:
    """Make a run of a copy of a folder in which one has finished."""
    with _queue_lock():
        return create(config, begun=folder, queued=False)


def submit_on_hold(config: RunConfig) -> Run:
    """Queue an order on hold, until it is resumed or its supervisor is started by hand."""
    with _queue_lock():
        run = create(config, order=_last_position())
        _requeue(run, hold=True, order=_position(run.state_event()))
    return run


def waiting() -> list[Run]:
    """Queued runs in order, including those on hold."""
    queued = []
    for run in runs():
        if run.state() == "queued":
            queued.append((_position(run.state_event()), run.id, run))
    return [run for _, _, run in sorted(queued, key=lambda item: item[:2])]


def on_hold(run: Run) -> bool:
    """Whether a queued run is paused: it is not started before it is resumed."""
    return bool((run.state_event() or {}).get("hold"))


def over(run: Run) -> bool:
    """Whether a run has ended and its processes are gone, or it was paused."""
    state = reconcile(run)
    return (state == "queued" and on_hold(run)) or (state not in ("queued", *ALIVE) and not run.alive())


def advance() -> Run | None:
    """Record lost runs, then start queued runs while devices are free. Returns the first one started.

    Idempotent: called at the page's start, every few seconds while it is open, and after each run. Raises RunError if a
    supervisor did not start; the runs behind it were tried.
    """
    first = failure = None
    blocked = False  # a run waits for a device here, so only remote runs behind it may start
    if not os.access(home(), os.W_OK):
        return None  # a read-only home
    with _queue_lock():
        sweep()
        for run in runs():
            try:
                reconcile(run)
            except OSError as error:  # one unwritable folder does not block the others
                print(f"queue: {run.id}: {reason_of(error)}", file=sys.stderr, flush=True)
        for run in waiting():
            if run.stop_file.exists():
                run.append("end", state="stopped", cause="Stopped while it was waiting.", attempt=run.attempt())
            elif not on_hold(run):
                try:
                    if blocked and not launch.is_remote(run):
                        continue
                    started = start(run)
                    blocked = blocked or not started
                    first = first or (run if started else None)
                except RunError as error:  # the next one may start
                    failure = failure or error
    if failure is not None:
        raise failure
    return first


def watch(every: float = 5.0, then: Callable[[], None] | None = None) -> threading.Thread:
    """Start a thread that advances the queue every `every` seconds, for the page. then: called after each time."""

    def loop() -> None:
        while True:
            try:
                advance()
                if then is not None:
                    then()
            except (RunError, OSError, TimeoutError) as error:
                print(f"queue: {error}", file=sys.stderr, flush=True)
            time.sleep(every)

    thread = threading.Thread(target=loop, name="queue", daemon=True)
    thread.start()
    return thread


def start(run: Run) -> bool:
    """Start the run's supervisor; True once it holds the run's lock, False if no device is free. Raises RunError."""
    if not launch.is_remote(run) and all(events.is_locked(lock.path) for lock in claim.device_locks()):
        return False
    crash.point("queue.start")
    command = [sys.executable, "-m", "studio.supervise", "--detach", str(run.folder)]
    try:
        with credentials.handed_over() as secrets:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_WAIT,
                **secrets,
            )
    except subprocess.TimeoutExpired:
        hint = "Try again."
        raise RunError(f"The supervisor of {run.id} did not start within {START_WAIT:.0f} s.", hint, "run") from None
    crash.point("queue.started")
    if done.returncode in (UP, BUSY):
        return done.returncode == UP
    message = f"The supervisor of {run.id} did not start: {child_process.last_line(done.stderr, 'it gave no reason')}"
    hint = f"Try again; if it stays, run python -m studio.supervise {run.folder} in a terminal and read what it says."
    raise RunError(message, hint, "run")


# -- actions on a queued or running run


def stop(run: Run, discard: bool = False) -> str:
    """Ask a run to stop and save, or with discard to keep nothing; a queued run ends at once. Returns the new state.

    The delays are in studio/runs/stopping.py. A second stop with discard shortens a first one's.
    """
    with _queue_lock():
        state = reconcile(run)
        if state not in ("queued", *ALIVE):
            raise RunError(f"{run.id} is not running: it is {state}.", "There is nothing to stop.", "run")
        run.request_stop("discard" if discard else "keep")
        if state == "queued" and not run.alive():
            run.append("end", state="stopped", cause="Stopped while it was waiting.", attempt=run.attempt())
            run.stop_file.unlink(missing_ok=True)
    return run.state()


def pause(run: Run) -> str:
    """Stop a run, keep its checkpoint and queue it again, on hold until it is resumed."""
    with _queue_lock():
        state = reconcile(run)
        if state == "queued":
            _requeue(run, hold=True, order=_position(run.state_event()))
        elif state in ALIVE:
            run.request_stop("pause")
        else:
            raise RunError(f"{run.id} is not running: it is {state}.", "There is nothing to pause.", "run")
    return run.state()


def resume(run: Run, changes: dict[str, dict[str, Any]] | None = None, why: str = "resumed with changes") -> list[str]:
    """Queue a run again; it continues from its newest complete checkpoint, or starts anew without one.

    changes: of the order from now on, {section: {key: value}}. Returns them in words, which the run's notes tell too.
    Raises RunError if a resume does not allow them, StudioError where data or base are gone or others.
    """
    changed: list[str] = []
    config = run.config.with_changes(**changes) if changes else run.config
    if on_hold(run) or run.state() not in ("queued", *ALIVE):
        continuation.check(run, config)  # reads files: not while others wait for the queue
    with _queue_lock():
        state = reconcile(run)
        if state == "queued" and on_hold(run):
            _requeue(run, hold=False, order=_position(run.state_event()))
        elif state in ("queued", *ALIVE):
            raise RunError(f"{run.id} is {state} already.", "Wait for it, or stop it first.", "run")
        elif state == "finished" and not changes:
            raise RunError(f"{run.id} is finished.", "Start a new run, or extend it with more epochs.", "run")
        else:
            sequence.refuse_other_order(run.checkpoints, config, run.plan().get("effective_batch"))
            if changes:
                changed = sequence.differences(run.config, config)
                run.change(why, **changes)
            if changed:
                run.note(f"Changed: {'; '.join(changed)}.", level="notice", attempt=run.attempt())
            run.stop_file.unlink(missing_ok=True)
            _requeue(run, hold=False, order=_last_position())
    advance()
    return changed


def move(run: Run, place: int) -> list[Run]:
    """Move a queued run to a place in the queue (1 is next); returns the new queue."""
    with _queue_lock():
        others = [other for other in waiting() if other.id != run.id]
        if run.state() != "queued":
            hint = "Only a queued run has a place in the queue."
            raise RunError(f"{run.id} is not waiting: it is {run.state()}.", hint, "run")
        index = max(0, min(place - 1, len(others)))
        before = _position(others[index - 1].state_event()) if index else None
        after = _position(others[index].state_event()) if index < len(others) else None
        if after is None:
            order = (before or 0) + 1
        elif before is None:
            order = after - 1
        else:
            order = (before + after) / 2
        _requeue(run, hold=on_hold(run), order=order)
        return waiting()


def _requeue(run: Run, hold: bool, order: float) -> None:
    run.append("phase", name="queued", attempt=run.attempt(), order=order, hold=hold)


# -- the end of an attempt


def reconcile(run: Run) -> str:
    """recovery.reconcile, and finalize if the supervisor died after the end event. Returns the state."""
    state = recovery.reconcile(run)
    if state in END_STATES and recovery.unfinished(run):
        with recovery.exclusive(run) as locked:
            if locked and recovery.end_orphans(run):
                finalize(run)
    return run.state()


def finalize(run: Run) -> None:
    """After the end event, under the run's lock: discard, queue again (paused or extended), remove temporary files."""
    stop_mode, state = run.stop_request(), (run.state_event() or {}).get("state")
    if stop_mode == "discard" and state == "stopped":
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        shutil.rmtree(run.result, ignore_errors=True)
    run.stop_file.unlink(missing_ok=True)
    if (stop_mode == "pause" and state == "stopped") or (state == "finished" and _goes_on(run)):
        _requeue(run, hold=stop_mode == "pause", order=_last_position())
    recovery.tidy(run)
    run.release_reserve()  # last: its presence means that finalize has not completed


def _goes_on(run: Run) -> bool:
    """Whether the run was extended during its last attempt, and can go on."""
    started = [event for event in run.events() if event["kind"] == "phase" and event["name"] == "starting"]
    known = started[-1].get("changes", 0) if started else 0  # a count, since the clock may be adjusted
    if not any(change["why"].startswith("extended") for change in run.changes()[known:]):
        return False
    try:
        continuation.check(run, run.config)
    except StudioError as error:
        run.note(f"It was not extended: {error.message}", error.hint)
        return False
    return True


def _position(state_event: dict[str, Any] | None) -> float:
    event = state_event or {}
    return event["order"] if isinstance(event.get("order"), (int, float)) else event.get("at", 0.0)


def _last_position() -> float:
    """A position behind all queued runs; a count, since the clock may be adjusted."""
    return max((_position(run.state_event()) for run in waiting()), default=0.0) + 1


def _queue_lock() -> Lock:
    """Held while the queue is changed."""
    return Lock(subfolder("locks") / "queue")
