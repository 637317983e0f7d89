"""A source of an order as its stage needs it: where that writes answers itself, prompts alone are rows too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from studio.data.dataset import Dataset
from studio.data.examples import asked_of
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.errors import DataError
from studio.reward import Reward

LOOKED_AT = 1000  # rows, for an answer to compare with
FORMAT = "prompts"


def read_for(order: DataOrder, source: str) -> Dataset:
    """A source read as its stage needs it: prompts alone are rows where it writes answers itself. Raises DataError."""
    try:
        dataset = read(source, order.format, order.mapping, encoding=order.encoding)
        if len(dataset.conversations) or not _takes_prompts(order):
            return dataset
    except DataError:
        if not _takes_prompts(order):
            raise
        with suppress(DataError):
            return read(source, FORMAT, encoding=order.encoding)
        raise
    return read(source, FORMAT, encoding=order.encoding)


def _takes_prompts(order: DataOrder) -> bool:
    return order.examples == "prompts" and order.format == "auto" and not order.mapping


def check_references(order: DataOrder, rewards: Sequence[Reward]) -> None:
    """Raise DataError where a reward compares with an answer and no row has one that it can compare with."""
    for source in order.sources():
        rows = read_for(order, source.source).conversations.batch(0, LOOKED_AT)
        references = [asked.reference for row in rows if (asked := asked_of(row)) is not None]
        for reward in rewards:
            if any(map(reward.compares_with, references)):
                continue
            raise DataError(
                f"The reward {reward.label} reads a number in the row's own answer, and none of {source.source} has "
                "one."
                if any(map(str.strip, references))
                else f"The reward {reward.label} compares with the row's own answer, and the rows of {source.source} "
                "have none.",
                "Add a column with the right answer, such as reference, or take rewards that need none.",
                "stage.rewards",
            )
