"""Which run is next: one run at a time on a device. No server: whoever ends, starts or looks at a run moves the queue on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from studio import crash, events
from studio.config import RunConfig
from studio.errors import RunError
from studio.events import END_STATES, Lock
from studio.home import PROJECT, home, subfolder
from studio.run import ALIVE, Run, create, runs, sweep
from studio.runs import claim, launch, recovery, sequence

START_WAIT = 60.0  # seconds a supervisor may take to show itself
UP, BUSY = 0, 3  # how python -m studio.supervise --detach answers: it holds the run's lock; no device is free


def submit(config: RunConfig) -> Run:
    """Put an order in the queue and start it if its device is free."""
    with _turn():
        run = create(config, order=_behind())
    advance()
    return run


def submit_on_hold(config: RunConfig) -> Run:
    """Make a run that waits on hold: whoever resumes it, or starts its supervisor by hand, lets it run."""
    with _turn():
        run = create(config, order=_behind())
        _put(run, hold=True, order=_order(run.state_event()))
    return run


def waiting() -> list[Run]:
    """Queued runs, the next one first; those on hold too, where they stand."""
    queued = []
    for run in runs():
        state_event = run.state_event()
        if run.state() == "queued":
            queued.append((_order(state_event), run.id, run))
    return [run for _, _, run in sorted(queued, key=lambda item: item[:2])]


def on_hold(run: Run) -> bool:
    """Whether a waiting run was paused: it stays in the queue, but is not started before it is resumed."""
    return bool((run.state_event() or {}).get("hold"))


def advance() -> Run | None:
    """Write down what was lost, then start the next queued runs as far as devices are free; returns the first one started.

    Safe to call from anywhere, any number of times: at the page's start, every few seconds while it is open, after each run. Raises RunError
    when the supervisor of one did not start; those behind it were tried.
    """
    first = trouble = None
    blocked = False  # a run waits for a device here: none behind it takes one, those that train elsewhere may start
    if not os.access(home(), os.W_OK):
        return None  # a home that may only be read is looked at
    with _turn():
        sweep()
        for run in runs():
            try:
                reconcile(run)
            except OSError as error:  # one folder that cannot be written does not hold up the others
                print(f"queue: {run.id}: {error}", file=sys.stderr, flush=True)
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
                except RunError as error:  # the next one may have better luck
                    trouble = trouble or error
    if trouble is not None:
        raise trouble
    return first


def watch(every: float = 5.0, then: Callable[[], None] | None = None) -> threading.Thread:
    """For the page: a thread that advances the queue now and every few seconds, so that what was lost is said while somebody looks.

    then: called after each time.
    """

    def look() -> None:
        while True:
            try:
                advance()
                if then is not None:
                    then()
            except (RunError, OSError, TimeoutError) as error:
                print(f"queue: {error}", file=sys.stderr, flush=True)
            time.sleep(every)

    thread = threading.Thread(target=look, name="queue", daemon=True)
    thread.start()
    return thread


def start(run: Run) -> bool:
    """Start the run's supervisor, detached; True once it holds the run's lock, False when no device is free. Raises RunError."""
    if not launch.is_remote(run) and all(events.is_locked(lock.path) for lock in claim.device_locks()):
        return False
    crash.point("queue.start")
    command = [sys.executable, "-m", "studio.supervise", "--detach", str(run.folder)]
    try:
        done = subprocess.run(
            command, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_WAIT
        )
    except subprocess.TimeoutExpired:
        raise RunError(
            f"The supervisor of {run.id} did not start within {START_WAIT:.0f} s.", "Try again.", "run"
        ) from None
    crash.point("queue.started")
    if done.returncode in (UP, BUSY):
        return done.returncode == UP
    reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    raise RunError(
        f"The supervisor of {run.id} did not start: {reason}",
        f"Try again; if it stays, run python -m studio.supervise {run.folder} in a terminal and read what it says.",
        "run",
    )


# -- what can be done with a run in the queue or on a device


def stop(run: Run, discard: bool = False) -> str:
    """Ask a run to stop and keep what it learnt, or with discard keep nothing; a waiting one ends at once. Returns the state after.

    The stated delays are in studio/runs/stopping.py. A second stop with discard hurries a first one.
    """
    with _turn():
        state = reconcile(run)
        if state not in ("queued", *ALIVE):
            raise RunError(f"{run.id} is not running: it is {state}.", "There is nothing to stop.", "run")
        run.request_stop("discard" if discard else "keep")
        if state == "queued" and not run.alive():
            run.append("end", state="stopped", cause="Stopped while it was waiting.", attempt=run.attempt())
            run.stop_file.unlink(missing_ok=True)
    return run.state()


def pause(run: Run) -> str:
    """Stop a run, keep its checkpoint and put it back in the queue, on hold until it is resumed."""
    with _turn():
        state = reconcile(run)
        if state == "queued":
            _put(run, hold=True, order=_order(run.state_event()))
        elif state in ALIVE:
            run.request_stop("pause")
        else:
            raise RunError(f"{run.id} is not running: it is {state}.", "There is nothing to pause.", "run")
    return run.state()


def resume(run: Run, changes: dict[str, dict[str, Any]] | None = None, why: str = "resumed with changes") -> None:
    """Queue a run again; it goes on from its newest complete checkpoint, or from the start when it has none.

    changes: of the order from here on, {section: {key: value}}. Raises RunError when they would change the data's sequence.
    """
    with _turn():
        state = reconcile(run)
        if state == "queued" and on_hold(run):
            _put(run, hold=False, order=_order(run.state_event()))
        elif state in ("queued", *ALIVE):
            raise RunError(f"{run.id} is {state} already.", "Wait for it, or stop it first.", "run")
        elif state == "finished" and not changes:
            raise RunError(f"{run.id} is finished.", "Start a new run, or extend it with more epochs.", "run")
        else:
            config = run.config.with_changes(**changes) if changes else run.config
            sequence.refuse_other_order(run.checkpoints, config, last_plan(run).get("effective_batch"))
            if changes:
                run.change(why, **changes)
            run.stop_file.unlink(missing_ok=True)
            _put(run, hold=False, order=_behind())
    advance()


def last_plan(run: Run) -> dict[str, Any]:
    """What the trainer settled on the last time; nothing before it has begun."""
    return events.last(run.events_file, ("plan",)) or {}


def move(run: Run, place: int) -> list[Run]:
    """Put a waiting run at a place in the queue (1 is next); returns the new order."""
    with _turn():
        others = [other for other in waiting() if other.id != run.id]
        if run.state() != "queued":
            raise RunError(
                f"{run.id} is not waiting: it is {run.state()}.", "Only a queued run has a place in the queue.", "run"
            )
        index = max(0, min(place - 1, len(others)))
        before = _order(others[index - 1].state_event()) if index else None
        after = _order(others[index].state_event()) if index < len(others) else None
        order = (
            (before + after) / 2
            if before is not None and after is not None
            else after - 1
            if after is not None
            else (before or 0) + 1
        )
        _put(run, hold=on_hold(run), order=order)
        return waiting()


def _put(run: Run, hold: bool, order: float) -> None:
    run.append("phase", name="queued", attempt=run.attempt(), order=order, hold=hold)


# -- the end of an attempt


def reconcile(run: Run) -> str:
    """recovery.settle, and what a supervisor that died behind the end line did not come to. Returns the state."""
    state = recovery.reconcile(run)
    if state in END_STATES and recovery.unfinished(run):
        with recovery.alone(run) as mine:
            if mine and recovery.end_orphans(run):
                finalize(run)
    return run.state()


def finalize(run: Run) -> None:
    """Behind the end line, under the run's lock: what the stop request asked for beyond it, a goal moved meanwhile, the leftovers."""
    how, state = run.stop_request(), (run.state_event() or {}).get("state")
    if how == "discard" and state == "stopped":
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        shutil.rmtree(run.result, ignore_errors=True)
    run.stop_file.unlink(missing_ok=True)
    if (how == "pause" and state == "stopped") or (state == "finished" and _extended(run)):
        _put(run, hold=how == "pause", order=_behind())
    recovery.tidy(run)
    run.give_up_reserve()  # last: as long as it is there, this is to be done


def _extended(run: Run) -> bool:
    """Whether the goal was moved while the last attempt ran."""
    started = [event for event in run.events() if event["kind"] == "phase" and event["name"] == "starting"]
    known = started[-1].get("changes", 0) if started else 0  # counted, not the time of day: a clock may step
    return any(change["why"].startswith("extended") for change in run.changes()[known:])


def _order(state_event: dict[str, Any] | None) -> float:
    order = (state_event or {}).get("order")
    return order if isinstance(order, (int, float)) else (state_event or {}).get("at", 0.0)


def _behind() -> float:
    """A place behind all that wait. Counted, not the time of day: a clock may step."""
    return max((_order(run.state_event()) for run in waiting()), default=0.0) + 1


def _turn() -> Lock:
    """One at a time changes the queue."""
    return Lock(subfolder("locks") / "queue")
