"""What the fault tests share: an order, ways to start, kill and recover a run, and what must be true of a run in the
end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from studio import events, process, queue
from studio.config import RunConfig, build
from studio.errors import RunError
from studio.home import PROJECT, home, subfolder
from studio.run import Run, current_events, runs, summary
from studio.runs import claim
from tests.faults import fake_trainer

OVER = ("finished", "stopped", "failed", "lost")
WAIT = 60.0  # seconds for anything to happen on a busy machine; a cell that waits so long fails
within = [WAIT]  # seconds until what has happened must be said; the long form asks for 10


class Seen(NamedTuple):
    """What was said of a run, and how many seconds after the fault."""

    state: str
    cause: str
    action: str
    seconds: float


seen: list[Seen] = []  # of the cell that is running


def until(true: Callable[[], Any], what: str, wait: float = WAIT) -> Any:
    """Wait for something; its value. Fails with words."""
    end = time.monotonic() + wait
    while not (value := true()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {wait:.0f} s in vain: {what}")
        time.sleep(0.02)
    return value


def noticed(run: Run, state: str, cause: str = "", action: str = "", reason: str | None = None) -> Seen:
    """Look as an open page does until this is said of the run, from now on. Fails when it is not, or not soon enough.

    cause, action: words in them; reason: exactly.
    """
    began = time.monotonic()

    def said() -> dict[str, Any] | None:
        told = summary(run)
        fits = (
            told["state"] == state
            and cause in (told["cause"] or "")
            and action in (told["action"] or "")
            and reason in (None, told["reason"])
        )
        if not fits:
            queue.advance()
        return told if fits else None

    try:
        told = until(said, f"{state}: {cause}", within[0])
    except AssertionError as error:
        raise AssertionError(f"{error}; said was {summary(run)}") from None
    seen.append(Seen(told["state"], told["cause"] or "", told["action"] or "", time.monotonic() - began))
    return seen[-1]


def finished_run(**ordered: object) -> Run:
    with surroundings(**fake(**ordered)):
        run = queue.submit(order())
        until(lambda: ended(run), "the run's end")
    assert run.state() == "finished", run.state_event()
    return run


def crashed_at_step_10() -> Run:
    """A run that failed with checkpoints at steps 4 and 8."""
    with surroundings(**fake(), STUDIO_CRASH_AT="events.step#10"):
        run = queue.submit(order())
        until(lambda: ended(run), "the crash")
    assert run.state() == "failed", run.state_event()
    assert summary(run)["action"].startswith("Resume")
    return run


def order(name: str = "one", **sections: Any) -> RunConfig:
    """An order for the fake trainer: nothing of it but name and training.epochs matters."""
    return build({"name": name, "data": {"train": "sample"}, **sections})


@contextmanager
def surroundings(**values: str) -> Iterator[None]:
    """Environment variables for the processes started inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def fake(**ordered: Any) -> dict[str, str]:
    """The environment under which the fake trainer does as ordered."""
    return {"STUDIO_TRAINER": "tests.faults.fake_trainer", "STUDIO_FAKE": json.dumps(ordered)}


def page(code: str) -> subprocess.Popen[bytes]:
    """A process that stands for the page: it imports the core and runs some lines. It can be killed."""
    lines = (
        "import os, time\nfrom pathlib import Path\nfrom studio import queue, run\n"
        "from studio.config import build\nfrom tests.faults.stage import order\n"
    )
    return subprocess.Popen([sys.executable, "-c", lines + code], cwd=PROJECT, start_new_session=True)


def the_run() -> Run | None:
    found = runs()
    return found[0] if found else None


def supervisor(run: Run) -> psutil.Process | None:
    return next(iter(process.holders(run.lock)), None)


def trainers(run: Run) -> list[psutil.Process]:
    """All processes of the run's trainer, the supervisor left out."""
    above = {one.pid for one in process.holders(run.lock)}
    return [one for one in process.holders(run.trainer_lock) if one.pid not in above]


def ended(run: Run) -> bool:
    return run.state() in OVER and not run.alive()


def bring_home(run: Run, wait: float = WAIT) -> int:
    """What the owner does after a crash: start the app again, press resume until the run is finished.

    Returns how often it was resumed.
    """
    times, end = 0, time.monotonic() + wait
    queue.advance()
    while not (run.state() == "finished" and not run.alive()):
        if time.monotonic() > end:
            raise AssertionError(f"not finished after {wait:.0f} s: {run.state()}, {run.state_event()}")
        queue.advance()
        if ended(run) and run.state() != "finished":
            try:
                queue.resume(run)
                times += 1
            except RunError as error:
                if "already" not in error.message:  # somebody's advance was quicker
                    raise
        time.sleep(0.05)
    return times


def steps_told(run: Run) -> list[int]:
    return [event["step"] for event in current_events(run.events()) if event["kind"] == "step"]


def leftovers() -> list[str]:
    """Temporary files under the home's runs."""
    return [str(path.relative_to(home())) for path in subfolder("runs").rglob(".*")]


def check_whole(run: Run, steps: int, weights: str | None = None) -> None:
    """Finished, each step once and in order, the weights of the reference, no process, no lock, no temporary file."""
    assert run.state() == "finished", (run.state(), run.state_event())
    assert steps_told(run) == list(range(1, steps + 1)), steps_told(run)
    assert (run.result / "manifest.json").is_file()
    if weights is not None:
        assert (run.result / "model.bin").read_text() == weights
    until(lambda: not process.holders(run.lock) and not process.holders(run.trainer_lock), "its processes are gone", 40)
    assert not run.alive()
    assert not any(events.is_locked(lock.path) for lock in claim.device_locks())
    assert not leftovers(), leftovers()


def check_fake(run: Run, steps: int = 12) -> None:
    check_whole(run, steps, fake_trainer.reference(steps))


def kill(one: psutil.Process | None) -> None:
    if one is not None:
        process.send_signal(one, signal.SIGKILL)


def clear() -> None:
    """End whatever a failed cell has left, so that the next starts clean."""
    for run in runs():
        for one in (*process.holders(run.lock), *process.holders(run.trainer_lock)):
            kill(one)


def files(run: Run) -> list[Path]:
    return sorted(path for path in run.folder.rglob("*") if path.is_file())
