"""The peak of an order on a device: the walked step and what lies around its tensors, as the device counts both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from studio import auto, cards, new_tokens
from studio.base import source
from studio.config import RunConfig
from studio.device import Device
from studio.footprint import Footprint
from studio.kernels import PAD_TO_MULTIPLE_OF, padded_width
from studio.memory import ranks, studio_loop
from studio.memory.architecture import read_architecture
from studio.memory.overhead import Overhead, overhead
from studio.memory.states import states
from studio.memory.step import Step, step
from studio.memory.studio_loop import RowStatistics
from studio.memory.training_loop import TrainingLoop
from studio.methods import AnyMethod
from studio.model import ModelFacts

CAUSES = ("weights", "trained", "gradients", "optimizer", "activations", "logits", "workspace", "overhead")
BUSY = 4.0  # times as long as the host starts kernels, a micro-batch is computed on a card
TRIES = 2  # walks of a search between what fits and what does not
REACHED = 0.45  # of a card's dense speed, in its best layers


class Peak(NamedTuple):
    """The walked step, what lies around its tensors, and the loop with `checkpointing` and `optimizer` resolved.

    correction: measured bytes over estimated ones, from this device's finished runs (forecast/record.py).
    """

    step: Step
    overhead: Overhead
    loop: TrainingLoop
    device: Device
    correction: float = 1.0
    tokens: int | None = None  # of a micro-batch, where the estimate chose them

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
        """The expected bytes by CAUSES. The correction is overhead; what it would push below the context hits all."""
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


@dataclass(frozen=True)
class Walk:
    """An order on a device, walked with what `auto` leaves open."""

    facts: ModelFacts
    config: RunConfig
    device: Device
    rows: RowStatistics | None
    correction: float

    def __call__(self, checkpointed: int, tokens: int | None = None, optimizer: str | None = None) -> Peak:
        """The peak. checkpointed: layers; tokens: of a micro-batch; None for tokens or optimizer: the usual."""
        facts, config, device = self.facts, self.config, self.device
        footprint = footprint_of(facts, config.method, 2 if config.training.weights == "bf16" else 4)
        loop = studio_loop.studio_loop(config, facts, device, self.rows, footprint, checkpointed, tokens)
        loop = loop._replace(optimizer=optimizer or loop.optimizer)
        whole = states(facts, footprint, loop)
        if ranks.split(config, device, whole, footprint):
            loop = studio_loop.with_fsdp(loop)
            whole = states(facts, footprint, loop)
        architecture = read_architecture(facts)
        share = ranks.share(whole, loop)
        walked = step(architecture, loop, footprint, share, ranks.gathered(facts, architecture, footprint, loop))
        around = overhead(device, walked, loop, architecture, footprint, share.paged)
        return Peak(walked, around, loop, device, self.correction, tokens)


def peak(
    facts: ModelFacts, config: RunConfig, device: Device, rows: RowStatistics | None, correction: float = 1.0
) -> Peak:
    """The peak with what `auto` leaves to the estimate resolved: tokens of a micro-batch, checkpointing, optimizer.

    The quickest that fits is taken: what saves memory only where it must be, and no more of it. facts: as `grown`
    returns them. Raises OrderError where the method does not fit the model.
    """
    walk = Walk(facts, config, device, rows, correction)
    expected, checkpointed = _quickest(walk)
    if config.training.optimizer != "auto" or config.training.weights == "bf16" or expected.fits:
        return expected
    optimizer = config.method.optimizer(device)
    return walk(checkpointed, expected.tokens, optimizer) if optimizer else expected


def _quickest(walk: Walk) -> tuple[Peak, int]:
    """(peak, checkpointed layers) of the quickest settings that fit; of the leanest where none do.

    Memory is saved in this order: fewer tokens at once, down to what keeps a card busy; checkpointed layers; fewer
    tokens still.
    """
    training, device, layers = walk.config.training, walk.device, walk.facts.num_hidden_layers
    ordered = layers if training.checkpointed_layers == "auto" else min(layers, training.checkpointed_layers)
    least = ordered if training.checkpointing is True else 0
    most = ordered if training.checkpointing is not False and walk.config.method.can_checkpoint(walk.facts) else 0
    row = studio_loop.longest_row(walk.config, walk.rows)
    usual, chooses = auto.packed_tokens(walk.config, device, row), auto.chooses_micro_batch(walk.config, device)
    busy = min(studio_loop.step_tokens(walk.config, walk.rows), max(row, _busy_tokens(walk.facts, device)))
    expected = walk(least)
    if expected.fits:
        return (_with_more_tokens(walk, expected, usual, busy, least) if chooses and busy > usual else expected), least
    if chooses and busy < usual and (fewer := walk(least, busy)).fits:
        return largest_fitting(fewer, busy, expected, usual, PAD_TO_MULTIPLE_OF, partial(walk, least)), least
    if most > least:
        beyond, expected = expected, walk(most)
        if expected.fits and training.checkpointed_layers == "auto":
            expected = largest_fitting(expected, 0, beyond, most, 1, lambda kept: walk(most - kept))
            return expected, layers - expected.loop.kept_layers
    if not expected.fits and chooses and row < usual:
        beyond, expected = expected, walk(most, row)
        if expected.fits:
            take = partial(walk, most)
            expected = largest_fitting(expected, row, beyond, usual, PAD_TO_MULTIPLE_OF, take)
    return expected, most


def _with_more_tokens(walk: Walk, expected: Peak, usual: int, busy: int, checkpointed: int) -> Peak:
    """The peak with as many of `busy` tokens at once as fit; `expected` has the usual ones."""
    more = walk(checkpointed, busy)
    if more.fits:
        return more
    return largest_fitting(expected, usual, more, busy, PAD_TO_MULTIPLE_OF, partial(walk, checkpointed))


def largest_fitting(
    fitting: Peak, low: int, beyond: Peak, high: int, unit: int, measure: Callable[[int], Peak]
) -> Peak:
    """The peak at a large value, a multiple of `unit` between low, where it fits, and high, where it does not.

    Memory grows about in a line, so that a few tries come near; rather a little too low.
    """
    for _ in range(TRIES):
        share = (fitting.device.free - fitting.needed) / max(1, beyond.needed - fitting.needed)
        value = min(high - unit, low + int(share * (high - low))) // unit * unit
        if value <= low:
            break
        walked = measure(value)
        if walked.fits:
            low, fitting = value, walked
        else:
            high, beyond = value, walked
    return fitting


@lru_cache(maxsize=64)
def footprint_of(facts: ModelFacts, method: AnyMethod, itemsize: int) -> Footprint:
    """The method's footprint; itemsize: bytes of a trained number. It stays the same while batch and length move."""
    return replace(method.footprint(facts), trained_itemsize=itemsize)


def grown(facts: ModelFacts, config: RunConfig) -> ModelFacts:
    """Facts with the rows that data.new_tokens needs; without the base's tokenizer, a row for each."""
    if not config.data.new_tokens or facts.token_rows:
        return facts
    return _grown(facts, config.data.new_tokens, source.local(config.model))


@lru_cache(maxsize=16)
def _grown(facts: ModelFacts, texts: tuple[str, ...], folder: Path | None) -> ModelFacts:
    if folder is None or not (folder / "tokenizer.json").is_file():
        return facts.grown(facts.rows + len(texts), len(texts))
    added = new_tokens.assign_ids(folder, texts)
    return facts.grown(added.size, len(added.rows))


def _busy_tokens(facts: ModelFacts, device: Device) -> int:
    """Tokens of a micro-batch for which a card computes some times as long as the host needs to start the kernels."""
    card = cards.find(device.name, device.memory)
    speed = card.speed * cards.share(device.name) if card else device.traits.speed or 0.0
    seconds = BUSY * device.traits.launch * facts.num_hidden_layers
    return padded_width(int(seconds * REACHED * speed / (6 * facts.parameters)))
