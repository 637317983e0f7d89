"""How long a running run still takes: by its pace so far, its pauses, and what its plan expects."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

PAUSES = ("probing", "evaluating", "saving")


def left(done: int, steps: int, spent: float, expected: float) -> float:
    """Remaining seconds: by the estimate at first, after a twentieth of the steps by what they took.

    done, steps: optimizer steps. spent: seconds that the done ones took. expected: seconds of a step, as estimated.
    """
    weight = min(1.0, done / max(1.0, 0.05 * steps))
    measured = spent / done if done else expected
    return max(0, steps - done) * (weight * measured + (1 - weight) * expected)


class Pause(NamedTuple):
    """A probe, an evaluation or a saving between two steps: its name and the seconds at which it began and ended."""

    name: str
    began: float
    ended: float


def pauses(events: Sequence[Mapping[str, Any]]) -> list[Pause]:
    """Probes, evaluations and savings that are over, from a run's events with their `time` (ui/tail.py)."""
    phases = [event for event in events if event["kind"] == "phase"]
    return [
        Pause(phase["name"], phase["time"], following["time"])
        for phase, following in pairwise(phases)
        if phase["name"] in PAUSES
    ]


def remaining(
    steps: Sequence[float],
    times: Sequence[float],
    pauses: Sequence[Pause],
    plan: Mapping[str, Any],
    tokens: Sequence[float] = (),
) -> float | None:
    """Seconds that a running run still takes; None where nothing is known.

    steps, times, tokens: of its points so far. plan: its plan event. Steps take as long as those of the last half, the
    first ones not counted, which compile kernels; evaluations and savings as those so far, or as expected.
    """
    total, estimate = plan.get("steps"), plan.get("expected") or {}
    expected = estimate.get("seconds_per_step")
    if not total or not len(steps) and expected is None:
        return None
    done = int(steps[-1]) if len(steps) else 0
    if 0 < len(steps) < 3 and steps[0] == 1 and len(tokens) == len(steps):  # the start of the training is a point too
        steps, times, tokens = [0, *steps], [0.0, *times], [0, *tokens]
    pace = _measured_pace(steps, times, pauses, plan, tokens)
    pace, expected = (expected if pace is None else pace), (pace if expected is None else expected)
    if pace is None or expected is None:
        return None
    seconds = left(done, total, pace * done, expected)
    for name, key in (("evaluating", "eval_every"), ("saving", "save_every")):
        durations = [pause.ended - pause.began for pause in pauses if pause.name == name]
        usual = statistics.mean(durations) if durations else (estimate.get("pauses") or {}).get(name, 0.0)
        if plan.get(key):
            seconds += max(0, total // plan[key] - done // plan[key]) * usual
    return seconds


def _measured_pace(
    steps: Sequence[float],
    times: Sequence[float],
    pauses: Sequence[Pause],
    plan: Mapping[str, Any],
    tokens: Sequence[float],
) -> float | None:
    """Seconds a step of mean length took in the last half, without its pauses; None before it has two points."""
    first = min(max(2, len(steps) // 2), max(0, len(steps) - 2))
    counted = steps[-1] - steps[first] if len(steps) > first else 0
    if not counted:
        return None
    paused = sum(
        pause.ended - pause.began for pause in pauses if times[first] <= pause.began and pause.ended <= times[-1]
    )
    pace = (times[-1] - times[first] - paused) / counted
    data = plan.get("statistics") or {}
    if data.get("rows") and plan.get("effective_batch") and len(tokens) == len(steps) and tokens[-1] > tokens[first]:
        step_tokens = min(plan["effective_batch"], data["rows"]) * data["tokens"] / data["rows"]
        pace *= step_tokens * counted / (tokens[-1] - tokens[first])
    return pace
