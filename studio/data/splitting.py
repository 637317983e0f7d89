"""Training and evaluation rows: a seeded share, spread evenly over short and long rows."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from studio.data.dataset import Conversations, Dataset


class SourceSplit(NamedTuple):
    """A source after the decisions on its problems: the rows to train on and those held out of it."""

    dataset: Dataset
    train: Conversations
    eval: Conversations


def num_held_out(rows: int, share: float, most: int | None = None) -> int:
    """How many of these rows a share holds out: at least one and not all, at most `most`."""
    num_held_out_rows = min(max(round(rows * share), 1), rows - 1) if share > 0 and rows > 1 else 0
    return num_held_out_rows if most is None else min(num_held_out_rows, max(1, most))


def split(
    conversations: Conversations, share: float, seed: int = 42, most: int | None = None
) -> tuple[Conversations, Conversations]:
    """(train, eval). Stratified by length: of every run of neighbours in length one row goes to eval.

    Deterministic in rows, share and seed. Both have at least one row where there are two rows and share > 0.
    most: rows of eval.
    """
    count = len(conversations)
    num_held_out_rows = num_held_out(count, share, most)
    if not num_held_out_rows:
        return conversations, conversations.take([])
    order = np.argsort(conversations.sizes(characters), kind="stable").tolist()
    draw, eval_indices = random.Random(seed), set()
    for k in range(num_held_out_rows):
        a, b = k * count // num_held_out_rows, (k + 1) * count // num_held_out_rows
        eval_indices.add(order[draw.randrange(a, b)])
    chosen = np.array(sorted(eval_indices))
    return conversations.take(np.delete(np.arange(count), chosen)), conversations.take(chosen)


def characters(messages: pa.ListArray) -> np.ndarray:
    """Characters of each conversation."""
    lengths = np.cumsum([0, *pc.utf8_length(pc.struct_field(pc.list_flatten(messages), "content")).to_pylist()])
    return np.diff(lengths[np.cumsum([0, *pc.list_value_length(messages).to_pylist()])])
