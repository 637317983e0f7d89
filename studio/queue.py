"""Which run is next: one run at a time on a device. No server: whoever ends or starts a run moves the queue on."""

from __future__ import annotations

import subprocess
import sys
import time

from studio.config import RunConfig
from studio.errors import RunError
from studio.events import Lock, held
from studio.home import PROJECT, room
from studio.run import ALIVE, Run, create, runs

START_WAIT = 20.0  # seconds a supervisor may take to show itself


def submit(config: RunConfig) -> Run:
    """Put an order in the queue and start it if its device is free."""
    run = create(config)
    advance()
    return run


def waiting() -> list[Run]:
    """Queued runs, the next one first."""
    queued = []
    for run in runs():
        diary = run.events()
        if run.state(diary) == "queued":
            last = next((event for event in reversed(diary) if event["kind"] == "phase"), {})
            queued.append((last.get("order", last.get("at", 0.0)), run.id, run))
    return [run for _, _, run in sorted(queued, key=lambda item: item[:2])]


def device_lock(device: str = "0") -> Lock:
    """Held by the supervisor whose trainer uses the device."""
    return Lock(room("locks") / f"device-{device}")


def advance() -> Run | None:
    """Start the next queued run if the device is free; returns it. Safe to call from anywhere, any number of times."""
    with Lock(room("locks") / "queue"):
        if held(device_lock().path):
            return None
        for run in waiting():
            if not run.stop_file.exists():
                start(run)
                return run
            run.append("end", state="stopped", cause="Stopped while it was waiting.", attempt=0)
    return None


def start(run: Run) -> None:
    """Start the run's supervisor, detached, and wait until it holds the lock. Raises RunError when it does not come up."""
    done = subprocess.run([sys.executable, "-m", "studio.supervise", "--detach", str(run.folder)], cwd=PROJECT,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    until = time.monotonic() + START_WAIT
    while done.returncode == 0 and time.monotonic() < until:
        if run.alive() or run.state() not in ("queued", "lost"):
            return
        time.sleep(0.03)
    reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    raise RunError(f"The supervisor of {run.id} did not start: {reason}", "Try again; if it stays, run "
                   f"python -m studio.supervise {run.folder} in a terminal and read what it says.", "run")


def stop(run: Run, discard: bool = False) -> str:
    """Ask a run to stop; a waiting one ends at once. Returns the state after asking."""
    state = run.state()
    if state not in ("queued", *ALIVE):
        raise RunError(f"{run.id} is not running: it is {state}.", "There is nothing to stop.", "run")
    run.ask_to_stop(discard)
    if state == "queued":
        with Lock(room("locks") / "queue"):
            if run.state() == "queued":
                run.append("end", state="stopped", cause="Stopped while it was waiting.", attempt=0)
    return run.state()


def resume(run: Run) -> None:
    """Queue a run again; it goes on from its newest complete checkpoint, or from the start when it has none."""
    state = run.state()
    if state in ("queued", *ALIVE):
        raise RunError(f"{run.id} is {state} already.", "Wait for it, or stop it first.", "run")
    if state == "finished":
        raise RunError(f"{run.id} is finished.", "Start a new run, or extend it with more epochs.", "run")
    run.stop_file.unlink(missing_ok=True)
    run.append("phase", name="queued", attempt=max((event.get("attempt", 0) for event in run.events()), default=0))
    advance()
