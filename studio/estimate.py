"""estimate: what a run will take, in bytes by cause, before it starts. Arithmetic only: no torch, a few milliseconds.

A training step is walked on a tape that counts memory as autograd would hold it (memory/step.py); around it lie the context
and the allocator's gaps (memory/overhead.py). The page calls `estimate` at every move of a slider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio.config import RunConfig
from studio.device import Device
from studio.memory import ours
from studio.memory.anatomy import anatomy
from studio.memory.ours import Rows
from studio.memory.overhead import Overhead, overhead
from studio.memory.stack import Stack
from studio.memory.states import states
from studio.memory.step import Step, step
from studio.model import ModelFacts

CAUSES = ("weights", "trained", "gradients", "optimizer", "activations", "logits", "workspace", "overhead")


class Change(BaseModel):
    """One piece of advice: settings to change, in words, what it saves (bytes) and what it costs."""

    model_config = ConfigDict(frozen=True)
    change: dict[str, Any]
    text: str
    saves: int
    cost: str


class Estimate(BaseModel):
    """Bytes and seconds. total is the expected peak as the device shows it; low and high its band; by_cause sums to total.

    allocated: tensors alone. by_phase: the peak of each moment. headroom: share of the free memory that `high` leaves (negative: lacks).
    checkpointing: as settled. seconds is None where nothing is known of the data.
    """

    model_config = ConfigDict(frozen=True)
    total: int
    low: int
    high: int
    allocated: int
    by_cause: dict[str, int]
    by_phase: dict[str, int]
    peak_phase: str
    trainable: int
    parameters: int
    checkpointing: bool
    seconds: float | None = None
    seconds_per_step: float | None = None
    steps: int | None = None
    disk: int = 0
    fits: bool
    device: str
    memory: int
    free: int
    headroom: float
    advice: tuple[Change, ...] = ()


def estimate(facts: ModelFacts, config: RunConfig, device: Device, rows: Rows | Mapping[str, int] | None = None) -> Estimate:
    """The estimate of an order on a device. rows: statistics of the data (Rows, or data.prepare's), where they are known.

    Raises OrderError where the method's knobs do not fit the model.
    """
    known = _rows(rows)
    walked, around, settled = walk(facts, config, device, known)
    causes = by_cause(walked, around)
    total = sum(causes.values())
    high = walked.peak + around.high
    return Estimate(
        total=total, low=walked.peak + around.low, high=high, allocated=walked.peak, by_cause=causes,
        by_phase={moment: size + around.expected for moment, size in walked.by_moment.items()}, peak_phase=walked.moment,
        trainable=config.method.trainable(facts), parameters=facts.parameters, checkpointing=settled.checkpointing, steps=steps(config, known),
        fits=high <= device.free, device=device.name, memory=device.memory, free=device.free,
        headroom=round(1 - high / device.free, 4) if device.free else -1.0)


def needs_checkpointing(facts: ModelFacts, config: RunConfig, device: Device, rows: Rows | Mapping[str, int] | None = None) -> bool:
    """What checkpointing: auto comes to: on where the run would not fit without it, and the method allows it."""
    wanted = config.training.checkpointing
    if wanted != "auto":
        return wanted
    if not config.method.allows_checkpointing:
        return False
    walked, around = _walk(facts, config, device, _rows(rows), False)[:2]
    return walked.peak + around.high > device.free


def walk(facts: ModelFacts, config: RunConfig, device: Device, rows: Rows | None) -> tuple[Step, Overhead, Stack]:
    """The walked step, what lies around it, and the loop's settings with checkpointing settled."""
    return _walk(facts, config, device, rows, needs_checkpointing(facts, config, device, rows))


def _walk(facts: ModelFacts, config: RunConfig, device: Device, rows: Rows | None, checkpointing: bool) -> tuple[Step, Overhead, Stack]:
    footprint = config.method.footprint(facts)
    loop = ours.stack(config, facts, device, rows, footprint, checkpointing)
    parts = anatomy(facts)
    walked = step(parts, loop, footprint, states(facts, footprint, config.method.trained(facts), loop))
    return walked, overhead(device, walked, loop, parts), loop


def by_cause(walked: Step, around: Overhead) -> dict[str, int]:
    """The peak's bytes under the eight names the page shows."""
    causes = {cause: walked.causes.get(cause, 0) for cause in CAUSES}
    causes["workspace"] += walked.causes.get("gradients in flight", 0) + around.workspace
    causes["overhead"] = around.expected - around.workspace
    return causes


def steps(config: RunConfig, rows: Rows | None) -> int | None:
    """Optimizer steps of the run; None where the rows are not known and no number was ordered."""
    return config.training.max_steps if rows is None else config.training.steps(rows.rows)


def _rows(rows: Rows | Mapping[str, int] | None) -> Rows | None:
    if rows is None or isinstance(rows, Rows):
        return rows
    return Rows(rows["rows"], rows["tokens"], rows["trained"], rows["max"], rows.get("eval_rows", 0))
