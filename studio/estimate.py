"""estimate: what a run will take, in bytes by cause, before it starts. Arithmetic only: no torch, a few milliseconds.

A training step is walked on a tape that counts memory as autograd would hold it (memory/step.py); around it lie the
context and the allocator's gaps (memory/overhead.py). The page calls `estimate` at every move of a slider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio import new_tokens
from studio.base import source
from studio.config import RunConfig
from studio.device import Device
from studio.footprint import Footprint
from studio.forecast import advice, duration
from studio.memory import ranks, studio_loop
from studio.memory.architecture import ByIdentity, read_architecture
from studio.memory.explain import explain
from studio.memory.overhead import Overhead, overhead
from studio.memory.states import states
from studio.memory.step import Step, step
from studio.memory.studio_loop import RowStatistics
from studio.memory.training_loop import TrainingLoop
from studio.methods import AnyMethod
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
    """Bytes and seconds. total is the expected peak as the device shows it; low and high its band; by_cause sums to
    total.

    allocated: tensors alone, kernels' workspaces with them, as torch.cuda.max_memory_allocated counts. by_phase: the
    peak of each moment. headroom: share of the free memory that `high` leaves (negative: lacks). checkpointing: as
    settled. seconds is None where nothing is known of the data. Where several devices share the run (processes), total
    and its parts are of one rank, by_rank lists all. context: bytes of total that torch's allocator does not reserve.
    correction: what runs of this device said of estimates before this one.
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
    processes: int = 1
    optimizer: str = ""  # as settled
    sharding: str | None = None  # ddp or fsdp where several devices share the run
    by_rank: tuple[dict[str, Any], ...] = ()
    context: int = 0
    correction: float = 1.0
    seconds: float | None = None
    seconds_per_step: float | None = None
    steps: int | None = None
    tokens_per_second: float | None = None
    speed_from: str | None = None  # runs, calibration or data sheet
    step_work: float | None = None  # FLOP of a step
    step_beside: float | None = None  # seconds of a step that its work does not explain
    pauses: dict[str, float] = {}  # seconds of one evaluation and of one saving, where the time is known
    disk: int = 0
    disk_by_cause: dict[str, int] = {}
    fits: bool
    device: str
    memory: int
    free: int
    headroom: float
    advice: tuple[Change, ...] = ()
    limits: dict[str, int | None] = {}  # the largest batch_size and max_length that fit, everything else as ordered
    explained: dict[str, str] = {}  # by cause, with these numbers

    def as_event(self) -> dict[str, Any]:
        """For the diary, where the record finds it again (record.py)."""
        return {
            "total": self.total,
            "allocated": self.allocated,
            "context": self.context,
            "correction": self.correction,
            "by_phase": self.by_phase,
            "peak_phase": self.peak_phase,
            "seconds": self.seconds,
            "seconds_per_step": self.seconds_per_step,
            "step_work": self.step_work,
            "step_beside": self.step_beside,
            "pauses": self.pauses,
            "device": self.device,
        }


def estimate(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | Mapping[str, int] | None = None,
    *,
    advised: bool = False,
    correction: float = 1.0,
    rates: Sequence[float] = (),
) -> Estimate:
    """The estimate of an order on a device. rows: statistics of the data (RowStatistics, or data.prepare's), where they
    are known.

    advised: with advice and limits, some twenty further walks. correction, rates: what this device's finished runs say
    (record.py). Raises OrderError where the method's knobs do not fit the model.
    """
    known, facts = _rows(rows), grown(facts, config)
    walked, around, loop = walk(facts, config, device, known, correction)
    causes, high = by_cause(walked, around, correction), _seen(walked.peak + around.high, around, correction)
    pace = (
        duration.pace(
            facts, config, known, loop, duration.speed(device, loop.weight_itemsize, rates, duration.kind(config))
        )
        if known
        else None
    )
    disk = on_disk(facts, config)
    sharing: dict[str, Any] = {}
    if loop.world_size > 1:
        one = {"total": sum(causes.values()), "high": high, "by_cause": causes}
        sharing = {
            "processes": loop.world_size,
            "sharding": "fsdp" if loop.fsdp else "ddp",
            "by_rank": tuple({"rank": rank, **one} for rank in range(loop.world_size)),
        }
    needed = high * loop.world_size if not device.traits.cards else high  # processes on a CPU share its RAM
    made = Estimate(
        total=sum(causes.values()),
        low=_seen(walked.peak + around.low, around, correction),
        high=high,
        allocated=walked.peak + around.workspace,
        by_cause=causes,
        by_phase={
            moment: _seen(around.at(size, walked), around, correction) for moment, size in walked.peak_by_phase.items()
        },
        peak_phase=walked.peak_phase,
        trainable=tuned(ByIdentity((facts,)), config.method)[2],
        parameters=facts.parameters,
        checkpointing=loop.checkpointing,
        optimizer=loop.optimizer,
        **sharing,
        context=around.context + around.paged,
        correction=correction,
        steps=steps(config, known),
        seconds=round(pace.total, 1) if pace else None,
        seconds_per_step=round(pace.step, 3) if pace else None,
        tokens_per_second=round(pace.tokens_per_second, 1) if pace else None,
        speed_from=pace.source if pace else None,
        step_work=pace.work if pace else None,
        step_beside=round(pace.beside, 4) if pace else None,
        pauses={"evaluating": round(pace.evaluation, 2), "saving": round(pace.saving, 2)} if pace else {},
        disk=sum(disk.values()),
        disk_by_cause=disk,
        fits=needed <= device.free,
        device=device.name,
        memory=device.memory,
        free=device.free,
        headroom=round(1 - needed / device.free, 4) if device.free else -1.0,
        explained=explain(causes, facts, config, loop),
    )
    return made.model_copy(update=_advised(facts, config, device, known, made, correction)) if advised else made


def grown(facts: ModelFacts, config: RunConfig) -> ModelFacts:
    """Facts with the rows that data.new_tokens needs; without the base's tokenizer, a row for each."""
    if not config.data.new_tokens or facts.token_rows:
        return facts
    return _grown(ByIdentity((facts,)), config.data.new_tokens, source.local(config.model))


@lru_cache(maxsize=16)
def _grown(same: ByIdentity, texts: tuple[str, ...], folder: Path | None) -> ModelFacts:
    facts: ModelFacts = same[0]
    if folder is None or not (folder / "tokenizer.json").is_file():
        return facts.grown(facts.rows + len(texts), len(texts))
    found = new_tokens.assign_ids(folder, texts)
    return facts.grown(found.size, len(found.rows))


def _seen(size: int, around: Overhead, correction: float) -> int:
    """Bytes corrected by what runs here took; the context is there whatever they take."""
    fixed = around.context + around.paged
    return fixed + int((size - fixed) * correction)


def _advised(
    facts: ModelFacts, config: RunConfig, device: Device, rows: RowStatistics | None, made: Estimate, correction: float
) -> dict[str, Any]:
    def measured(order: RunConfig, rows: RowStatistics | None) -> tuple[int, int]:
        walked, around, loop = walk(facts, order, device, rows, correction)
        needed = _seen(walked.peak + around.high, around, correction)
        return sum(
            by_cause(walked, around, correction).values()
        ), needed * loop.world_size if not device.traits.cards else needed

    found = (
        [] if made.fits else advice.advise(config, device.free, lambda order: measured(order, rows), made.checkpointing)
    )
    batches = range(1, min(256, rows.rows if rows else 256) + 1)
    lengths = range(
        64, max(config.data.max_length, facts.max_position_embeddings or 8 * config.data.max_length) + 1, 64
    )
    long = (
        rows._replace(longest=lengths[-1]) if rows else None
    )  # the longest length that fits, should there be rows as long
    return {
        "advice": tuple(
            Change(change=item.change.change, text=item.change.text, saves=item.saves, cost=item.change.cost)
            for item in found
        ),
        "limits": {
            "batch_size": advice.largest(
                config, "training.batch_size", batches, device.free, lambda order: measured(order, rows)
            ),
            "max_length": advice.largest(
                config, "data.max_length", lengths, device.free, lambda order: measured(order, long)
            ),
        },
    }


def on_disk(facts: ModelFacts, config: RunConfig) -> dict[str, int]:
    """Bytes by cause: checkpoints kept (trained weights, two optimizer states), one more while it is written, and the
    result.
    """
    trained = config.method.trainable(facts) * (2 if config.training.weights == "bf16" else 4)
    kept = config.training.keep_checkpoints + 1
    return {
        "checkpoints": kept * 3 * trained,
        "result": trained if config.method.adapter else facts.parameters * 2,
        "tokenizer and diary": 8 * 2**20,
    }


def needs_checkpointing(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | Mapping[str, int] | None = None,
    correction: float = 1.0,
) -> bool:
    """What checkpointing: auto comes to: on where the run would not fit without it, and the method allows it."""
    wanted = config.training.checkpointing
    if wanted != "auto":
        return wanted
    if not config.method.allows_checkpointing:
        return False
    return not _fits(_walk(facts, config, device, _rows(rows), False), device, correction)


def walk(
    facts: ModelFacts, config: RunConfig, device: Device, rows: RowStatistics | None, correction: float = 1.0
) -> tuple[Step, Overhead, TrainingLoop]:
    """The walked step, what lies around it, and the loop's settings with checkpointing and optimizer settled."""
    checkpointing = needs_checkpointing(facts, config, device, rows, correction)
    found = _walk(facts, config, device, rows, checkpointing)
    saving = (
        config.method.optimizer(device)
        if config.training.optimizer == "auto" and config.training.weights != "bf16"
        else None
    )
    return (
        found
        if saving is None or _fits(found, device, correction)
        else _walk(facts, config, device, rows, checkpointing, saving)
    )


def _fits(found: tuple[Step, Overhead, TrainingLoop], device: Device, correction: float) -> bool:
    walked, around, loop = found
    return (
        _seen(walked.peak + around.high, around, correction) * (1 if device.traits.cards else loop.world_size)
        <= device.free
    )


def _walk(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | None,
    checkpointing: bool,
    optimizer: str | None = None,
) -> tuple[Step, Overhead, TrainingLoop]:
    footprint, shapes, numbers = tuned(ByIdentity((facts,)), config.method)
    footprint = studio_loop.trained_footprint(config, footprint)
    loop = studio_loop.studio_loop(config, facts, device, rows, footprint, checkpointing)
    loop = loop._replace(optimizer=optimizer or loop.optimizer)
    whole = states(facts, footprint, shapes, loop)
    if ranks.split(config, device, whole, numbers):
        loop = studio_loop.with_fsdp(loop)
        whole = states(facts, footprint, shapes, loop)
    parts = read_architecture(facts)
    mine = ranks.share(whole, loop)
    walked = step(parts, loop, footprint, mine, ranks.gathered(facts, parts, footprint, loop))
    return walked, overhead(device, walked, loop, parts, footprint, mine.paged), loop


@lru_cache(maxsize=64)
def tuned(same: ByIdentity, method: AnyMethod) -> tuple[Footprint, Mapping[str, tuple[int, ...]], int]:
    """Footprint, trained shapes and their sum: they stay the same while batch and length are moved."""
    shapes = method.trained(same[0])
    return method.footprint(same[0]), shapes, sum(prod(shape) for shape in shapes.values())


def by_cause(walked: Step, around: Overhead, correction: float = 1.0) -> dict[str, int]:
    """The peak's bytes under the eight names the page shows. What runs here took beyond the estimate, or below it, is
    put down to what lies around the tensors, and where that is not enough to all causes alike.
    """
    causes = {cause: walked.causes.get(cause, 0) for cause in CAUSES}
    causes["workspace"] += walked.causes.get("gradients in flight", 0) + around.workspace
    causes["optimizer"] += around.paged
    causes["overhead"] = around.expected - around.workspace - around.paged
    more = _seen(sum(causes.values()), around, correction) - sum(causes.values())
    if causes["overhead"] + more >= around.context:
        return causes | {"overhead": causes["overhead"] + more}
    fixed = {"overhead": around.context, "optimizer": around.paged}
    return {
        cause: fixed.get(cause, 0) + int((size - fixed.get(cause, 0)) * correction) for cause, size in causes.items()
    }


def steps(config: RunConfig, rows: RowStatistics | None) -> int | None:
    """Optimizer steps of the run; None where the rows are not known and no number was ordered."""
    return config.training.max_steps if rows is None else config.training.steps(rows.rows)


def _rows(rows: RowStatistics | Mapping[str, int] | None) -> RowStatistics | None:
    if rows is None or isinstance(rows, RowStatistics):
        return rows
    return RowStatistics(rows["rows"], rows["tokens"], rows["trained"], rows["max"], rows.get("eval_rows", 0))
