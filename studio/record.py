"""The record: what finished runs on a device took, against what had been estimated. Read from the runs' folders; nothing else is kept."""

from __future__ import annotations

import statistics
from functools import lru_cache
from typing import Any, NamedTuple

from studio import model, run, summary
from studio.clock import work
from studio.device import Device
from studio.errors import StudioError

LAST = 12
LEAST = 3  # runs before a correction is made
BOUNDS = (0.8, 1.25)  # how far a correction may go


class Seen(NamedTuple):
    """One finished run: estimated and measured peak (bytes, measured / estimated) and FLOP/s reached; None where it is not known."""

    run: str
    method: str
    device: str
    estimated: int | None
    measured: int | None
    rate: float | None

    @property
    def ratio(self) -> float | None:
        return self.measured / self.estimated if self.measured and self.estimated else None


def seen(device: Device) -> list[Seen]:
    """Finished runs on this kind of device, newest first."""
    found = []
    for one in run.runs()[:60]:
        try:
            stamp = one.diary.stat().st_mtime_ns
        except OSError:
            continue
        item = _seen(str(one.folder), stamp)
        if item is not None and item.device == device.kind:
            found.append(item)
    return found


@lru_cache(maxsize=256)
def _seen(folder: str, stamp: int) -> Seen | None:
    one = run.Run(folder)
    diary = one.events()
    plan: dict[str, Any] = next((event for event in reversed(diary) if event["kind"] == "plan"), {})
    told = summary.summary(one)
    if told["state"] != "finished" or not plan:
        return None
    return Seen(one.id, told["method"], plan.get("device", "cpu"), plan.get("estimated_memory"), told["peak_memory"], _rate(one, plan, told))


def _rate(one: run.Run, plan: dict[str, Any], told: dict[str, Any]) -> float | None:
    """FLOP/s, from tokens a second and the work a token is."""
    speed = told["tokens_per_second"]
    if not speed or (told["step"] or 0) < 5:  # the first steps compile kernels
        return None
    try:
        config = one.config
        facts = model.facts_of(config.model)
        return speed * work(facts, config, min(config.data.max_length, 256), 0.6, bool(plan.get("checkpointing")))
    except StudioError:  # the model is gone
        return None


def correction(runs: list[Seen]) -> float:
    """What to multiply an estimate with, from the median of the last runs; 1.0 until there are some."""
    ratios = [item.ratio for item in runs if item.ratio][:LAST]
    return 1.0 if len(ratios) < LEAST else min(BOUNDS[1], max(BOUNDS[0], statistics.median(ratios)))


def told(runs: list[Seen]) -> dict[str, Any]:
    """For the page: {runs, median_error, text}; "last 12 runs: off by 3 % in the median"."""
    errors = [abs(1 / item.ratio - 1) for item in runs if item.ratio][:LAST]
    if not errors:
        return {"runs": 0, "median_error": None, "text": "No finished run on this device yet."}
    middle = statistics.median(errors)
    return {"runs": len(errors), "median_error": round(middle, 4), "text": f"Last {len(errors)} runs: off by {middle:.0%} in the median."}
