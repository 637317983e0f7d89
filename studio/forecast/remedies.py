"""Out-of-memory remedies: what to change where a run would not fit or ran out of memory, what each change saves and
costs, and how large batch and length may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from studio import auto, events, model, places
from studio.base import source
from studio.config import RunConfig
from studio.device import Device, devices
from studio.errors import OrderError, StudioError
from studio.memory.peak import Peak, grown, peak
from studio.memory.studio_loop import RowStatistics
from studio.method import Method
from studio.model import ModelFacts
from studio.runs.folder import Run
from studio.training import DEFAULT_ACCUMULATION

Measure = Callable[[RunConfig], Peak]
REPAIRED = ("memory", "killed", "nan")  # reasons of a failure after which a change of the order is offered
MIN_SAVING = 0.01  # share of the expected bytes; a remedy that saves less is not worth its cost
MIN_LENGTH = 256  # tokens; shorter rows are not proposed to be cut


class Remedy(NamedTuple):
    """A change of the order as {section: {key: value}}, in words, and what it costs.

    resumes: whether the run can go on from its checkpoint with it; the others change the rows or what is trained.
    """

    change: dict[str, Any]
    text: str
    cost: str
    resumes: bool = True

    @property
    def dotted(self) -> dict[str, Any]:
        """The change with dotted keys: {"training.batch_size": 2}."""
        changed: dict[str, Any] = {}
        for section, values in self.change.items():
            if isinstance(values, dict):
                changed |= {f"{section}.{key}": value for key, value in values.items()}
            else:
                changed[section] = values
        return changed


def remedies(
    config: RunConfig, checkpointing: bool, effective_batch: int, batch_sizes: Iterable[int]
) -> Iterator[Remedy]:
    """All remedies that an order leaves, the cheapest first: how it trains, what is trained, then how much of a row.

    checkpointing: as resolved. effective_batch: rows of an optimizer step, which stay. batch_sizes: smaller ones to
    propose.
    """
    training, method, length = config.training, config.method, config.data.max_length
    if not checkpointing:
        yield Remedy({"training": {"checkpointing": True}}, "Turn gradient checkpointing on.", "about a third slower")
    for size in batch_sizes:
        accumulation = effective_batch // size
        yield Remedy(
            {"training": {"batch_size": size, "accumulation": accumulation}},
            f"Batch size {size} with accumulation {accumulation} (still {effective_batch} rows a step).",
            "a little slower, same result",
        )
    if training.loss == "full":
        yield Remedy({"training": {"loss": "chunked"}}, "Compute the loss in chunks.", "next to nothing")
    if training.optimizer == "auto":
        change: dict[str, Any] = {"training": {"optimizer": "adamw_8bit"}}
        yield Remedy(change, "Keep the optimizer's states in 8 bits.", "next to nothing", resumes=False)
    if not checkpointing and training.batch_size > 1:
        yield Remedy(
            {"training": {"checkpointing": True, "batch_size": 1, "accumulation": effective_batch}},
            f"Gradient checkpointing on, and batch size 1 with accumulation {effective_batch}.",
            "a third slower or more",
        )
    yield from _of_method(method)
    if length > MIN_LENGTH:
        yield Remedy(
            {"data": {"max_length": length // 2}},
            f"Cut rows at {length // 2} tokens.",
            "the ends of longer rows are not learnt",
            resumes=False,
        )


def _of_method(method: Method) -> Iterator[Remedy]:
    """Every cheaper method, or knob of this one."""
    if method.name == "lora":
        change: dict[str, Any] = {"method": {"name": "qlora"}}
        yield Remedy(change, "Hold the base in 4 bits (QLoRA).", "a fifth slower, very little quality", resumes=False)
    if method.name == "full":
        yield Remedy(
            {"method": "lora"},
            "Train LoRA matrices instead of every weight.",
            "learns less deeply, forgets less",
            resumes=False,
        )
        yield Remedy(
            {"method": "qlora"},
            "Train LoRA matrices beside a base in 4 bits (QLoRA).",
            "learns less deeply, slower a step",
            resumes=False,
        )
    if getattr(method, "target_modules", None) == "all-linear":
        change = {"method": {"target_modules": "q-v"}}
        yield Remedy(change, "Put matrices on queries and values only.", "some quality", resumes=False)
    if (rank := getattr(method, "rank", 0)) > 8:
        change = {"method": {"rank": rank // 2}}
        yield Remedy(change, f"Halve the rank to {rank // 2}.", "some capacity", resumes=False)


def _refuse(config: RunConfig, facts: ModelFacts | None, device: Device) -> None:
    """Raise OrderError where a changed order does not go with model or device."""
    config.method.refuse(facts, config.training, device)
    config.stage.refuse(config.method, config.data, config.training)
    auto.optimizer(config, device)


def advise(
    config: RunConfig, facts: ModelFacts, expected: Peak, effective_batch: int, measure: Measure
) -> list[tuple[Remedy, int]]:
    """Remedies for an order that does not fit, with the bytes saved: sufficient ones first, then by cost."""
    largest_batch = max(1, config.training.batch_size // 4)
    batch_size = next(size for size in range(largest_batch, 0, -1) if effective_batch % size == 0)
    batch_sizes = [batch_size] if config.training.batch_size > 1 else []
    fitting: list[tuple[Remedy, int]] = []
    others: list[tuple[Remedy, int]] = []
    for remedy in remedies(config, expected.loop.checkpointing, effective_batch, batch_sizes):
        order = config.with_changes(**remedy.change)
        try:
            _refuse(order, facts, expected.device)
            changed = measure(order)
        except OrderError:
            continue
        saved = expected.total - changed.total
        if saved > MIN_SAVING * expected.total:
            (fitting if changed.fits else others).append((remedy, saved))
    return fitting + others


def repairs(run: Run) -> list[dict[str, Any]]:
    """After an out-of-memory: [{change, text, saves, cost, resumes}], the greatest saving that resumes first; after a
    loss that became not a number, a lower rate.

    saves: bytes by the estimate, None where the model's files are not at hand.
    """
    config, plan = run.config, events.last(run.events_file, ("plan",)) or {}
    if (events.last(run.events_file, ("end",)) or {}).get("reason") == "nan":
        rate = float(f"{config.learning_rate / 2:.2g}")
        change = {"training": {"learning_rate": rate}}
        text = f"Lower the learning rate to {rate:g}."
        return [{"change": change, "text": text, "saves": None, "cost": "learns more slowly", "resumes": True}]
    training = config.training
    accumulation = DEFAULT_ACCUMULATION if training.accumulation == "auto" else training.accumulation
    effective_batch = plan.get("effective_batch") or training.batch_size * accumulation
    checkpointing = training.checkpointing is True or bool(plan.get("checkpointing"))
    halves = [training.batch_size >> shift for shift in range(1, training.batch_size.bit_length())]
    batch_sizes = [size for size in halves if effective_batch % size == 0]
    expected = _expected_bytes(config, plan)
    offered, folder = [], source.check(config.model)
    facts, device = model.facts(folder) if folder else None, places.device_of(config.place) or devices()[0]
    for change, text, cost, resumes in remedies(config, checkpointing, effective_batch, batch_sizes):
        order = config.with_changes(**change)
        try:
            _refuse(order, facts, device)
            changed = _expected_bytes(order, plan)
        except StudioError:
            continue  # this method or model does not take the change
        saves = expected - changed if expected is not None and changed is not None else None
        if saves is None or saves > 0:
            offered.append({"change": change, "text": text, "saves": saves, "cost": cost, "resumes": resumes})
    return sorted(offered, key=lambda repair: (not repair["resumes"], -(repair["saves"] or 0)))


def _expected_bytes(config: RunConfig, plan: dict[str, Any]) -> int | None:
    folder = source.check(config.model)
    if folder is None:
        return None
    rows = RowStatistics.of(plan.get("statistics"))
    return peak(grown(model.facts(folder), config), config, devices()[0], rows).total


def apply(config: RunConfig, change: dict[str, Any]) -> RunConfig:
    """The order with some dotted keys set. Raises OrderError where they do not fit."""
    sections: dict[str, Any] = {}
    for dotted, value in change.items():
        section, _, key = dotted.partition(".")
        sections[section] = sections.get(section, {}) | {key: value} if key else value
    return config.with_changes(**sections)


def largest(config: RunConfig, key: str, values: Sequence[int], measure: Measure) -> int | None:
    """The largest of the ascending `values` of a setting (dotted key) with which the order fits; None if none does.

    First by doubling, from the top: where gradients no longer stay between micro-batches, a larger batch can take less.
    Then by halving between the largest that fits and the next that does not.
    """

    def fits(index: int) -> bool:
        try:
            return measure(apply(config, {key: values[index]})).fits
        except OrderError:  # not every setting goes with a longer row
            return False

    indices = sorted({min(2**power - 1, len(values) - 1) for power in range(len(values).bit_length() + 1)})
    low = next((index for index in reversed(indices) if fits(index)), None)
    if low is None:
        return None
    high = next((index for index in indices if index > low), len(values))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return values[low]
