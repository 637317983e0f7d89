"""The peak of an order on a device: the walked step and what lies around its tensors, as the device counts both."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

from studio import new_tokens
from studio.base import source
from studio.config import RunConfig
from studio.device import Device
from studio.footprint import Footprint
from studio.memory import ranks, studio_loop
from studio.memory.architecture import read_architecture
from studio.memory.overhead import Overhead, overhead
from studio.memory.states import states
from studio.memory.step import Step, step
from studio.memory.studio_loop import RowStatistics
from studio.memory.training_loop import TrainingLoop
from studio.methods import AnyMethod
from studio.model import ByIdentity, ModelFacts

CAUSES = ("weights", "trained", "gradients", "optimizer", "activations", "logits", "workspace", "overhead")


class Peak(NamedTuple):
    """The walked step, what lies around its tensors, and the loop with `checkpointing` and `optimizer` resolved.

    correction: measured bytes over estimated ones, from this device's finished runs (forecast/record.py).
    """

    step: Step
    overhead: Overhead
    loop: TrainingLoop
    device: Device
    correction: float = 1.0

    @property
    def context(self) -> int:
        """Bytes that torch's allocator does not reserve, and that no correction changes."""
        return self.overhead.context + self.overhead.paged

    def corrected(self, size: int) -> int:
        return self.context + int((size - self.context) * self.correction)

    @property
    def low(self) -> int:
        return self.corrected(self.step.peak + self.overhead.low)

    @property
    def high(self) -> int:
        return self.corrected(self.step.peak + self.overhead.high)

    @property
    def needed(self) -> int:
        """Bytes that must be free: `high`, times the processes on a CPU, which share its RAM."""
        return self.high if self.device.traits.cards else self.high * self.loop.world_size

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.free

    @property
    def total(self) -> int:
        """Expected bytes."""
        return sum(self.by_cause().values())

    def by_phase(self) -> dict[str, int]:
        phases = self.step.peak_by_phase.items()
        return {phase: self.corrected(self.overhead.at(size, self.step)) for phase, size in phases}

    def by_cause(self) -> dict[str, int]:
        """The expected bytes by CAUSES.

        The correction goes to the overhead; what would make that smaller than the context goes to all causes alike.
        """
        causes = {cause: self.step.causes.get(cause, 0) for cause in CAUSES}
        causes["workspace"] += self.step.causes.get("gradients in flight", 0) + self.overhead.workspace
        causes["optimizer"] += self.overhead.paged
        causes["overhead"] = self.overhead.expected - self.overhead.workspace - self.overhead.paged
        total = sum(causes.values())
        corrected_overhead = causes["overhead"] + self.corrected(total) - total
        if corrected_overhead >= self.overhead.context:
            return causes | {"overhead": corrected_overhead}
        fixed = {"overhead": self.overhead.context, "optimizer": self.overhead.paged}
        return {
            cause: fixed.get(cause, 0) + int((size - fixed.get(cause, 0)) * self.correction)
            for cause, size in causes.items()
        }


def peak(
    facts: ModelFacts, config: RunConfig, device: Device, rows: RowStatistics | None, correction: float = 1.0
) -> Peak:
    """The peak with `checkpointing: auto` and `optimizer: auto` resolved: what saves memory is taken where it must be.

    facts: as `grown` returns them. Raises OrderError where the method does not fit the model.
    """
    expected, checkpointing = _checkpointed(facts, config, device, rows, correction)
    if config.training.optimizer != "auto" or config.training.weights == "bf16" or expected.fits:
        return expected
    optimizer = config.method.optimizer(device)
    return _walk(facts, config, device, rows, correction, checkpointing, optimizer) if optimizer else expected


def _checkpointed(
    facts: ModelFacts, config: RunConfig, device: Device, rows: RowStatistics | None, correction: float
) -> tuple[Peak, bool]:
    """The peak with `checkpointing` as ordered; auto: where it would not fit without, and the method allows it."""
    ordered = config.training.checkpointing
    expected = _walk(facts, config, device, rows, correction, ordered is True)
    if ordered != "auto" or expected.fits or not config.method.allows_checkpointing:
        return expected, ordered is True
    return _walk(facts, config, device, rows, correction, True), True


def _walk(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | None,
    correction: float,
    checkpointing: bool,
    optimizer: str | None = None,
) -> Peak:
    footprint, shapes, numbers = trained(ByIdentity((facts,)), config.method)
    footprint = studio_loop.trained_footprint(config, footprint)
    loop = studio_loop.studio_loop(config, facts, device, rows, footprint, checkpointing)
    loop = loop._replace(optimizer=optimizer or loop.optimizer)
    whole = states(facts, footprint, shapes, loop)
    if ranks.split(config, device, whole, numbers):
        loop = studio_loop.with_fsdp(loop)
        whole = states(facts, footprint, shapes, loop)
    architecture = read_architecture(facts)
    share = ranks.share(whole, loop)
    walked = step(architecture, loop, footprint, share, ranks.gathered(facts, architecture, footprint, loop))
    around = overhead(device, walked, loop, architecture, footprint, share.paged)
    return Peak(walked, around, loop, device, correction)


@lru_cache(maxsize=64)
def trained(facts: ByIdentity, method: AnyMethod) -> tuple[Footprint, Mapping[str, tuple[int, ...]], int]:
    """(footprint, trained shapes, trained numbers). They stay the same while batch and length are moved."""
    shapes = method.trained(facts[0])
    return method.footprint(facts[0]), shapes, sum(prod(shape) for shape in shapes.values())


def grown(facts: ModelFacts, config: RunConfig) -> ModelFacts:
    """Facts with the rows that data.new_tokens needs; without the base's tokenizer, a row for each."""
    if not config.data.new_tokens or facts.token_rows:
        return facts
    return _grown(ByIdentity((facts,)), config.data.new_tokens, source.local(config.model))


@lru_cache(maxsize=16)
def _grown(key: ByIdentity, texts: tuple[str, ...], folder: Path | None) -> ModelFacts:
    facts: ModelFacts = key[0]
    if folder is None or not (folder / "tokenizer.json").is_file():
        return facts.grown(facts.rows + len(texts), len(texts))
    added = new_tokens.assign_ids(folder, texts)
    return facts.grown(added.size, len(added.rows))
