"""estimate: what a run will take, in bytes by cause, before it starts. Arithmetic only: no torch, a few milliseconds.

A training step is walked on a tape that counts memory as autograd would hold it (memory/step.py); around it lie the
context and the allocator's gaps (memory/overhead.py). The page calls `estimate` at every move of a slider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio.config import RunConfig
from studio.device import Device
from studio.forecast import duration, remedies
from studio.forecast.duration import NO_RUNS, Past
from studio.memory.explain import explain
from studio.memory.peak import Peak, grown, peak
from studio.memory.studio_loop import ASSUMED_ROWS, RowStatistics
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts


class Change(BaseModel):
    """One piece of advice: settings to change (dotted keys), in words, what it saves (bytes) and what it costs."""

    model_config = ConfigDict(frozen=True)
    change: dict[str, Any]
    text: str
    saves: int
    cost: str


class Estimate(BaseModel):
    """Bytes and seconds. Where several devices share the run, total and its parts are of one rank, by_rank lists all.

    total: the expected peak as the device shows it, low and high its band; by_cause sums to total. allocated: tensors
    and kernels' workspaces, as torch.cuda.max_memory_allocated counts. by_phase: the peak of each phase. context: bytes
    of total that torch's allocator does not reserve. correction: the factor from this device's finished runs. seconds:
    None where nothing is known of the data. headroom: share of the free memory that `high` leaves, negative where it
    does not fit.
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
    checkpointed_layers: int = 0
    micro_batch: int | None = None  # tokens at once, where they were chosen by what fits
    processes: int = 1
    optimizer: str = ""  # as resolved
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
        """The fields of the plan event, from which forecast/record.py reads them."""
        return self.model_dump(include=RECORDED)


RECORDED = {
    "total", "allocated", "context", "correction", "by_phase", "peak_phase", "device",
    "seconds", "seconds_per_step", "step_work", "step_beside", "pauses",
}  # fmt: skip


def estimate(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | Mapping[str, int] | None = None,
    past: Past = NO_RUNS,
    *,
    advised: bool = False,
) -> Estimate:
    """The estimate of an order on a device.

    rows: statistics of the data (RowStatistics, or data.prepare's), where they are known. advised: with advice and
    limits, some twenty further walks.
    Raises OrderError where the method's knobs do not fit the model.
    """
    statistics, facts = RowStatistics.of(rows), grown(facts, config)
    expected = peak(facts, config, device, statistics, past.correction)
    loop, causes, disk = expected.loop, expected.by_cause(), on_disk(facts, config)
    result = Estimate(
        total=sum(causes.values()),
        low=expected.low,
        high=expected.high,
        allocated=expected.step.peak + expected.overhead.workspace,
        by_cause=causes,
        by_phase=expected.by_phase(),
        peak_phase=expected.step.peak_phase,
        trainable=config.method.trainable(facts),
        parameters=facts.parameters,
        checkpointing=loop.checkpointing,
        checkpointed_layers=facts.num_hidden_layers - loop.kept_layers if loop.checkpointing else 0,
        micro_batch=expected.tokens,
        optimizer=loop.optimizer,
        context=expected.context,
        correction=past.correction,
        steps=config.training.max_steps if statistics is None else config.steps(statistics.rows),
        disk=sum(disk.values()),
        disk_by_cause=disk,
        fits=expected.fits,
        device=device.name,
        memory=device.memory,
        free=device.free,
        headroom=round(1 - expected.needed / device.free, 4) if device.free else -1.0,
        explained=explain(causes, facts, config, loop),
        **_by_rank(expected, causes),
        **_duration(facts, config, device, statistics, loop, past.rates),
    )
    return result.model_copy(update=_advice(facts, config, statistics, expected)) if advised else result


def _by_rank(expected: Peak, causes: dict[str, int]) -> dict[str, Any]:
    """The fields of an estimate on how several devices share the run."""
    loop = expected.loop
    if loop.world_size == 1:
        return {}
    share = {"total": sum(causes.values()), "high": expected.high, "by_cause": causes}
    return {
        "processes": loop.world_size,
        "sharding": "fsdp" if loop.fsdp else "ddp",
        "by_rank": tuple({"rank": rank, **share} for rank in range(loop.world_size)),
    }


def _duration(
    facts: ModelFacts,
    config: RunConfig,
    device: Device,
    rows: RowStatistics | None,
    loop: TrainingLoop,
    rates: Sequence[float],
) -> dict[str, Any]:
    """The fields of an estimate on time."""
    if rows is None:
        return {}
    speed = duration.speed(device, loop.weight_itemsize, rates, duration.kind(config))
    pace = duration.pace(facts, config, rows, loop, speed)
    return {
        "seconds": round(pace.total, 1),
        "seconds_per_step": round(pace.step, 3),
        "tokens_per_second": round(pace.tokens_per_second, 1),
        "speed_from": pace.source,
        "step_work": pace.work,
        "step_beside": round(pace.beside, 4),
        "pauses": {"evaluating": round(pace.evaluation, 2), "saving": round(pace.saving, 2)},
    }


def _advice(facts: ModelFacts, config: RunConfig, rows: RowStatistics | None, expected: Peak) -> dict[str, Any]:
    """The fields of an estimate on what would help, and on how large batch and length may be."""
    device = expected.device

    def measure(order: RunConfig, rows: RowStatistics | None = rows) -> Peak:
        return peak(facts, order, device, rows, expected.correction)

    advice = []
    if not expected.fits:
        effective = config.training.effective_batch(rows.rows if rows else ASSUMED_ROWS)
        advice = remedies.advise(config, facts, expected, effective, measure)
    batch_sizes = range(1, min(256, rows.rows if rows else 256) + 1)
    longest = max(config.data.max_length, facts.max_position_embeddings or 8 * config.data.max_length)
    if facts.context:
        longest = max(64, facts.context - config.virtual_tokens - config.stage.answer_tokens)
    lengths = range(64, longest + 1, 64)
    long_rows = rows._replace(longest=lengths[-1]) if rows else None  # should there be rows as long
    return {
        "advice": tuple(
            Change(change=remedy.dotted, text=remedy.text, saves=saves, cost=remedy.cost) for remedy, saves in advice
        ),
        "limits": {
            "batch_size": remedies.largest(config, "training.batch_size", batch_sizes, measure),
            "max_length": remedies.largest(config, "data.max_length", lengths, lambda order: measure(order, long_rows)),
        },
    }


def on_disk(facts: ModelFacts, config: RunConfig) -> dict[str, int]:
    """Bytes by cause: checkpoints (trained weights, two optimizer states), one more while it is written; the result."""
    trained_bytes = config.method.trainable(facts) * (2 if config.training.weights == "bf16" else 4)
    whole = facts.parameters * (4 if facts.stored_dtype == "float32" and config.training.weights != "bf16" else 2)
    return {
        "checkpoints": (config.training.keep_checkpoints + 1) * 3 * trained_bytes,
        "result": trained_bytes if config.method.adapter else whole,
        "tokenizer and diary": 8 * 2**20,
    }
