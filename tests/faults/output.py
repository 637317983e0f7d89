"""A trainer that talks a lot."""

from __future__ import annotations

import statistics
import time

import psutil

from studio import queue
from tests.faults import stage

LINE = 50_000_000  # bytes


def endless_line() -> None:
    """One line of 50 MB: the run goes on, the log stays small, and nobody's memory grows with it."""
    with stage.surroundings(**stage.fake(line=LINE, pause=0.05)):
        run = queue.submit(stage.order())
        above, most = stage.supervisor(run), 0
        while not stage.ended(run):
            most = max(most, _memory(above))
            time.sleep(0.02)
    stage.noticed(run, "finished")
    stage.check_fake(run)
    assert run.log.stat().st_size < 1_000_000, run.log.stat().st_size
    assert most < 200_000_000, most


def _memory(one: psutil.Process | None) -> int:
    try:
        return one.memory_info().rss if one is not None else 0
    except psutil.NoSuchProcess:
        return 0


STEPS, PAUSE, PAIRS = 100, 0.1, 3


def cost() -> str:
    """1 MB of output with no page open, against none, in pairs: what it costs trainer and supervisor in processor
    time, as a share of the run's time.

    Processor time, because a busy machine stretches the run's own by more than the output does; that one is told too.
    """
    pairs = [(_run(0), _run(1_000_000)) for _ in range(PAIRS)]
    share = statistics.median((loud[1] - quiet[1]) / quiet[0] for quiet, loud in pairs)
    longer = statistics.median(loud[0] / quiet[0] - 1 for quiet, loud in pairs)
    assert share < 0.02, f"{share:.1%} of the run's time"
    return f"{share:+.2%} of a run of {pairs[0][0][0]:.0f} s in processor time, {longer:+.2%} by the clock"


def _run(size: int) -> tuple[float, float]:
    """(seconds from the first step to the last, processor seconds of trainer and supervisor)."""
    with stage.surroundings(**stage.fake(steps=STEPS, pause=PAUSE, save_every=1000, output=size // STEPS)):
        run = queue.submit(stage.order())
        above, spent = stage.supervisor(run), 0.0
        while not stage.ended(run):
            spent = max(spent, _spent(above))
            time.sleep(0.05)
    assert run.state() == "finished", run.state_event()
    steps = [event["at"] for event in run.events() if event["kind"] == "step"]
    return steps[-1] - steps[0], spent + run.state_event()["cpu"]


def _spent(one: psutil.Process | None) -> float:
    try:
        return sum(one.cpu_times()[:2]) if one is not None else 0.0
    except psutil.NoSuchProcess:
        return 0.0
