"""Advice: what to change where a run does not fit, what each change saves and costs; and how large batch and length may
be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from studio import config as orders
from studio.config import RunConfig
from studio.errors import OrderError

Measure = Callable[[RunConfig], tuple[int, int]]  # an order to (expected, high) bytes
WORTH = 0.01  # savings below this share of the whole are no advice


class Change(NamedTuple):
    """Settings to change (dotted keys of the order), in words, what it costs."""

    change: dict[str, Any]
    text: str
    cost: str


class Advised(NamedTuple):
    """A change with the bytes it saves, and whether the run fits then."""

    change: Change
    saves: int
    fits: bool


def advise(config: RunConfig, free: int, measure: Measure, checkpointing: bool) -> list[Advised]:
    """Changes that help, those that make the run fit first, in the order of what they cost."""
    now = measure(config)[0]
    found = []
    for change in candidates(config, checkpointing):
        try:
            total, high = measure(apply(config, change.change))
        except OrderError:  # does not go with this model or device
            continue
        if now - total > WORTH * now:
            found.append(Advised(change, now - total, high <= free))
    return sorted(found, key=lambda item: not item.fits)


def candidates(config: RunConfig, checkpointing: bool) -> Iterator[Change]:
    """What can be changed, the cheapest first."""
    training, method = config.training, config.method
    if not checkpointing and method.allows_checkpointing:
        yield Change({"training.checkpointing": True}, "Turn gradient checkpointing on.", "about a third slower")
    if training.batch_size > 1:
        small = max(1, training.batch_size // 4)
        rest = training.batch_size // small * (training.accumulation if isinstance(training.accumulation, int) else 4)
        yield Change(
            {"training.batch_size": small, "training.accumulation": rest},
            f"Work on {small} rows at a time, and gather more batches before a step.",
            "a little slower, same result",
        )
    if training.optimizer == "auto":
        yield Change({"training.optimizer": "adamw_8bit"}, "Keep the optimizer's states in 8 bits.", "next to nothing")
    if method.name == "lora":
        yield Change(
            {"method.name": "qlora"}, "Hold the base in 4 bits (QLoRA).", "a fifth slower, very little quality"
        )
    if method.name == "full":
        yield Change(
            {"method": "lora"}, "Train LoRA matrices instead of every weight.", "learns less deeply, forgets less"
        )
        yield Change(
            {"method": "qlora"},
            "Train LoRA matrices beside a base in 4 bits (QLoRA).",
            "learns less deeply, slower a step",
        )
    if getattr(method, "target_modules", None) == "all-linear":
        yield Change({"method.target_modules": "q-v"}, "Put matrices on queries and values only.", "some quality")
    if (rank := getattr(method, "rank", 0)) > 8:
        yield Change({"method.rank": rank // 2}, f"Halve the rank to {rank // 2}.", "some capacity")
    if config.data.max_length > 256:
        half = config.data.max_length // 2
        yield Change({"data.max_length": half}, f"Cut rows at {half} tokens.", "the ends of longer rows are not learnt")


def apply(config: RunConfig, change: dict[str, Any]) -> RunConfig:
    """The order with some dotted keys set. Raises OrderError where they do not fit."""
    plain = config.model_dump(mode="json", exclude_unset=True)
    plain["method"] = config.method.model_dump(mode="json", exclude_unset=True) | {"name": config.method.name}
    for key, value in change.items():
        *parents, last = key.split(".")
        here = plain
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = value
    return orders.build(plain)


def largest(config: RunConfig, key: str, values: range, free: int, measure: Measure) -> int | None:
    """The largest of `values` of a setting whose high band fits; None if not even the first does.

    First by doubling, from the top: where gradients no longer stay between pieces a larger batch can take less. Then by
    halving between the largest that fits and the next that does not.
    """

    def fits(place: int) -> bool:
        try:
            return measure(apply(config, {key: values[place]}))[1] <= free
        except OrderError:  # not every setting goes with a longer row
            return False

    places = sorted({min(2**power - 1, len(values) - 1) for power in range(len(values).bit_length() + 1)})
    found = next((place for place in range(len(places) - 1, -1, -1) if fits(places[place])), None)
    if found is None:
        return None
    low, high = (
        places[found],
        places[found + 1] if found + 1 < len(places) else len(values),
    )  # one that fits, one that does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return values[low]
