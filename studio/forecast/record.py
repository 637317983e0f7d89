"""The record: what finished runs on a device took, against their estimates. Read from the runs' folders.

Estimates go through `forecast`, which corrects them by it. A run counts once it has finished; a measurement that is far
beyond any error of an estimate does not count: it comes from a broken counter.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studio import model, places, run
from studio.base import source
from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError, StudioError
from studio.estimate import Estimate, estimate
from studio.events import latest
from studio.forecast import duration
from studio.forecast.duration import Past
from studio.memory.studio_loop import RowStatistics
from studio.model import ModelFacts
from studio.runs import summary

LAST = 12
LEAST = 3  # runs before a correction is made
BOUNDS = (0.8, 1.25)  # how far a correction may go
PLAUSIBLE = (0.5, 2.0)  # measured / estimated
WARMUP_STEPS = 2  # that compile kernels


class FinishedRun(NamedTuple):
    """One finished run; None where a figure is not known.

    estimated, measured: bytes of its peak, as the device counts them. raw: the estimate before its correction. rate:
    FLOP/s reached.
    """

    run: str
    model: str
    method: str
    device: str
    estimated: int | None
    raw: int | None
    measured: int | None
    rate: float | None

    @property
    def ratio(self) -> float | None:
        """measured / raw; None where it is not known or not plausible."""
        ratio = self.measured / self.raw if self.measured and self.raw else 0.0
        return ratio if PLAUSIBLE[0] <= ratio <= PLAUSIBLE[1] else None

    @property
    def error(self) -> float | None:
        """The error of the estimate that was shown, as a share of the measured bytes."""
        return self.estimated / self.measured - 1 if self.ratio and self.estimated and self.measured else None


def forecast(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | Mapping[str, int] | None = None,
    *,
    advised: bool = False,
) -> Estimate:
    """The estimate of an order on this computer's device, corrected by its finished runs, or on that of its place.

    Raises OrderError as estimate does, and where it is not known what another computer has.
    """
    if config.place.remote:
        remote_device = places.device_of(config.place)
        if remote_device is None:
            hint = "It is told once something was sent there: start the run, or train on a known card."
            raise OrderError(f"What {config.place.address} computes with is not known yet.", hint, "place")
        return estimate(facts, config, remote_device, rows, advised=advised)
    return estimate(facts, config, device, rows, past(device, config), advised=advised)


def past(device: Device, config: RunConfig) -> Past:
    """What this device's finished runs say of an order."""
    finished = finished_runs(device)
    rated = rates(finished, config, duration.calibrated(device) is not None)
    return Past(correction(finished, config), tuple(rated))


def finished_runs(device: Device) -> list[FinishedRun]:
    """Finished runs on this device, newest first."""
    finished = []
    for known in run.runs()[:60]:
        try:
            modified = known.events_file.stat().st_mtime_ns
        except OSError:
            continue
        figures = _figures(str(known.folder), modified)
        if figures is not None and figures.device in (device.name, device.kind):
            finished.append(figures)
    return finished


@lru_cache(maxsize=256)
def _figures(folder: str, modified: int) -> FinishedRun | None:
    """The figures of a run; None where it has not finished. modified: of its events, for the cache."""
    past = run.Run(Path(folder))
    events = past.events()
    plan = latest(events, "plan")
    outcome = summary.summary(past, events)
    if outcome["state"] != "finished" or not plan:
        return None
    expected: dict[str, Any] = plan.get("expected") or {}
    estimated = plan.get("estimated_memory")
    if estimated:
        estimated -= expected.get("context") or 0
    raw = int(estimated / (expected.get("correction") or 1.0)) if estimated else None
    return FinishedRun(
        past.id,
        str(outcome["model"]),
        str(outcome["method"]),
        expected.get("device") or plan.get("device", "cpu"),
        estimated,
        raw,
        outcome["peak_memory"],
        _rate(past, plan, events),
    )


def _rate(past: run.Run, plan: dict[str, Any], events: list[dict[str, Any]]) -> float | None:
    """FLOP/s of the steps after the first ones: the work of a step by its seconds, without those beside its work."""
    steps = [event for event in events if event["kind"] == "step" and event.get("tokens_per_second")]
    steps = steps[WARMUP_STEPS:] if len(steps) > 3 * WARMUP_STEPS else []
    data = plan.get("statistics") or {}
    if not steps or not data.get("rows"):
        return None
    tokens_per_second = len(steps) / sum(1 / event["tokens_per_second"] for event in steps)
    row_tokens = data["tokens"] / data["rows"]
    expected = plan.get("expected") or {}
    if expected.get("step_work") and plan.get("effective_batch"):
        seconds = min(plan["effective_batch"], data["rows"]) * row_tokens / tokens_per_second
        return expected["step_work"] / max(0.2 * seconds, seconds - expected["step_beside"])
    try:
        config = past.config
        if source.local(config.model) is None:
            return None  # a look at finished runs asks no service
        facts = model.facts_of(config.model)
        labelled = min(1.0, data["trained"] / max(1, data["tokens"]))
        token_work = duration.work(facts, config, row_tokens, labelled, _checkpointed(plan, facts))
        return tokens_per_second * token_work
    except StudioError:  # the model is gone
        return None


def _checkpointed(plan: Mapping[str, Any], facts: ModelFacts) -> float:
    """The share of the layers that a run's plan says were checkpointed."""
    if not plan.get("checkpointing"):
        return 0.0
    return plan.get("checkpointed_layers", facts.num_hidden_layers) / facts.num_hidden_layers


def like(runs: list[FinishedRun], config: RunConfig, least: int) -> list[FinishedRun]:
    """The runs of the order's model and method where there are `least` of them, else those of its method, else all."""
    name = config.model.source
    same = [item for item in runs if item.method == config.method.name and item.model == name]
    alike = [item for item in runs if item.method == config.method.name]
    return next((group for group in (same, alike) if len(group) >= least), runs)


def correction(runs: list[FinishedRun], config: RunConfig) -> float:
    """The factor of a memory estimate: the median ratio of the last runs like the order; 1.0 with fewer than LEAST.

    Runs of another method do not count. Those of another model may raise the estimate, never lower it: a fixed part
    that is estimated too high is much of a small model and little of a large one.
    """
    alike = like([item for item in runs if item.ratio and item.method == config.method.name], config, LEAST)
    ratios = [item.ratio for item in alike if item.ratio][:LAST]
    if len(ratios) < LEAST:
        return 1.0
    lowest = BOUNDS[0] if all(item.model == config.model.source for item in alike) else 1.0
    return round(min(BOUNDS[1], max(lowest, statistics.median(ratios))), 4)


def rates(runs: list[FinishedRun], config: RunConfig, calibrated: bool = False) -> list[float]:
    """FLOP/s of the last runs like the order, newest first. A calibration counts more than runs of other methods."""
    alike = like([item for item in runs if item.rate], config, 1)
    return [item.rate for item in alike if item.rate and (item.method == config.method.name or not calibrated)][:LAST]


def accuracy(runs: list[FinishedRun]) -> dict[str, Any]:
    """The accuracy of past estimates, {runs, median_error, text}: "last 12 runs: off by 3 % in the median"."""
    errors = [abs(item.error) for item in runs if item.error is not None][:LAST]
    if not errors:
        return {"runs": 0, "median_error": None, "text": "No finished run on this device yet."}
    middle = statistics.median(errors)
    text = f"Last {len(errors)} runs: off by {middle:.0%} in the median."
    return {
        "runs": len(errors),
        "median_error": round(middle, 4),
        "text": text if len(errors) > 1 else f"The last run: off by {middle:.0%}.",
    }
