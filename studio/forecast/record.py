"""The record: what finished runs on a device took, against what had been estimated. Read from the runs' folders;
nothing else is kept.

Estimates go through `forecast`, which corrects them by it. A run counts once it has finished, and not where its figures
cannot be: a measurement far beyond any error of an estimate tells of a broken counter, not of memory.
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
from studio.memory.studio_loop import RowStatistics
from studio.model import ModelFacts
from studio.runs import summary

LAST = 12
LEAST = 3  # runs before a correction is made
BOUNDS = (0.8, 1.25)  # how far a correction may go
SENSE = (0.5, 2.0)  # measured / estimated, beyond which a measurement is nonsense
WARM = 2  # steps that compile kernels, and tell nothing of the speed


class FinishedRun(NamedTuple):
    """One finished run. estimated, measured: bytes of its peak, as the device counts them; raw: the estimate before any
    correction; rate: FLOP/s reached; told, took: seconds from start to end. None where it is not known.
    """

    run: str
    model: str
    method: str
    device: str
    estimated: int | None
    raw: int | None
    measured: int | None
    rate: float | None
    told: float | None
    took: float | None

    @property
    def ratio(self) -> float | None:
        """measured / raw estimate; None where it is unknown or nonsense."""
        found = self.measured / self.raw if self.measured and self.raw else 0.0
        return found if SENSE[0] <= found <= SENSE[1] else None

    @property
    def error(self) -> float | None:
        """How far the estimate that was shown was off, as a share of what was measured."""
        return self.estimated / self.measured - 1 if self.ratio and self.estimated and self.measured else None


def forecast(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | Mapping[str, int] | None = None,
    *,
    advised: bool = False,
) -> Estimate:
    """The estimate of an order on this computer's device, corrected by its finished runs; of one that trains elsewhere,
    on what is there.

    Raises OrderError as estimate does, and where it is not known what another computer has.

    """
    if config.place.remote:
        there = places.device_of(config.place)
        if there is None:
            raise OrderError(
                f"What {config.place.address} computes with is not known yet.",
                "It is told once something was sent there: start the run, or train on a known card.",
                "place",
            )
        return estimate(facts, config, there, rows, advised=advised)
    here = finished_runs(device)
    return estimate(
        facts,
        config,
        device,
        rows,
        advised=advised,
        correction=correction(here, config),
        rates=rates(here, config, duration.calibrated(device) is not None),
    )


def finished_runs(device: Device) -> list[FinishedRun]:
    """Finished runs on this device, newest first."""
    found = []
    for one in run.runs()[:60]:
        try:
            stamp = one.events_file.stat().st_mtime_ns
        except OSError:
            continue
        item = _seen(str(one.folder), stamp)
        if item is not None and item.device in (device.name, device.kind):
            found.append(item)
    return found


@lru_cache(maxsize=256)
def _seen(folder: str, stamp: int) -> FinishedRun | None:
    one = run.Run(Path(folder))
    diary = one.events()
    plan = latest(diary, "plan")
    said = summary.summary(one, diary)
    if said["state"] != "finished" or not plan:
        return None
    expected: dict[str, Any] = plan.get("expected") or {}
    estimated = plan.get("estimated_memory")
    if estimated:
        estimated -= expected.get("context") or 0
    raw = int(estimated / (expected.get("correction") or 1.0)) if estimated else None
    whole = said["attempt"] <= 1  # a resumed run took other seconds than were told
    return FinishedRun(
        one.id,
        str(said["model"]),
        str(said["method"]),
        expected.get("device") or plan.get("device", "cpu"),
        estimated,
        raw,
        said["peak_memory"],
        _rate(one, plan, diary),
        expected.get("seconds") if whole else None,
        said["seconds"] if whole else None,
    )


def _rate(one: run.Run, plan: dict[str, Any], diary: list[dict[str, Any]]) -> float | None:
    """FLOP/s of the steps behind the first ones, from their tokens a second and the work a step is, without the seconds
    that lie beside it.
    """
    counted = [event for event in diary if event["kind"] == "step" and event.get("tokens_per_second")]
    counted = counted[WARM:] if len(counted) > 3 * WARM else []
    told = plan.get("statistics") or {}
    if not counted or not told.get("rows"):
        return None
    speed = len(counted) / sum(1 / event["tokens_per_second"] for event in counted)
    expected = plan.get("expected") or {}
    if expected.get("step_work") and plan.get("effective_batch"):
        took = min(plan["effective_batch"], told["rows"]) * told["tokens"] / told["rows"] / speed
        return expected["step_work"] / max(0.2 * took, took - expected["step_beside"])
    try:
        config = one.config
        if source.local(config.model) is None:
            return None  # a look at finished runs asks no service
        facts = model.facts_of(config.model)
        labelled = min(1.0, told["trained"] / max(1, told["tokens"]))
        return speed * duration.work(
            facts, config, told["tokens"] / told["rows"], labelled, bool(plan.get("checkpointing"))
        )
    except StudioError:  # the model is gone
        return None


def like(runs: list[FinishedRun], config: RunConfig, least: int) -> list[FinishedRun]:
    """The runs most like an order of which there are enough: of the same model and method, of the same method, or
    all.
    """
    name = config.model.source
    same = [item for item in runs if item.method == config.method.name and item.model == name]
    alike = [item for item in runs if item.method == config.method.name]
    return next((group for group in (same, alike) if len(group) >= least), runs)


def correction(runs: list[FinishedRun], config: RunConfig) -> float:
    """What to multiply a memory estimate with, from the median of the last runs like the order (1.0: too few).

    What another method took tells nothing of this one's memory. What another model took may raise the estimate, never
    lower it: a fixed part that is estimated too high is much of a small model and little of a large one.
    """
    alike = like([item for item in runs if item.ratio and item.method == config.method.name], config, LEAST)
    ratios = [item.ratio for item in alike if item.ratio][:LAST]
    if len(ratios) < LEAST:
        return 1.0
    lowest = BOUNDS[0] if all(item.model == config.model.source for item in alike) else 1.0
    return round(min(BOUNDS[1], max(lowest, statistics.median(ratios))), 4)


def rates(runs: list[FinishedRun], config: RunConfig, calibrated: bool = False) -> list[float]:
    """FLOP/s of the last runs like the order, newest first. Those of other methods tell less than a calibration does,
    where there is one.
    """
    found = like([item for item in runs if item.rate], config, 1)
    return [item.rate for item in found if item.rate and (item.method == config.method.name or not calibrated)][:LAST]


def accuracy(runs: list[FinishedRun]) -> dict[str, Any]:
    """For the page: {runs, median_error, text}; "last 12 runs: off by 3 % in the median"."""
    errors = [abs(item.error) for item in runs if item.error is not None][:LAST]
    if not errors:
        return {"runs": 0, "median_error": None, "text": "No finished run on this device yet."}
    middle = statistics.median(errors)
    return {
        "runs": len(errors),
        "median_error": round(middle, 4),
        "text": f"Last {len(errors)} runs: off by {middle:.0%} in the median.",
    }
