"""Training and evaluation rows: a seeded share, spread evenly over short and long rows."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from studio.data.dataset import Conversations


def num_held_out(rows: int, share: float, most: int | None = None) -> int:
    """How many of these rows a share holds out: at least one and not all, at most `most`."""
    wanted = min(max(round(rows * share), 1), rows - 1) if share > 0 and rows > 1 else 0
    return wanted if most is None else min(wanted, max(1, most))


def split(
    conversations: Conversations, share: float, seed: int = 42, most: int | None = None
) -> tuple[Conversations, Conversations]:
    """(train, eval). Stratified by length: of every run of neighbours in length one row goes to eval.

    The same rows, share and seed give the same split. At least one row each when there are two rows and share > 0. most: rows of eval.
    """
    count = len(conversations)
    wanted = num_held_out(count, share, most)
    if not wanted:
        return conversations, conversations.take([])
    order = np.argsort(conversations.sizes(characters), kind="stable").tolist()
    draw, held = random.Random(seed), set()
    for k in range(wanted):
        a, b = k * count // wanted, (k + 1) * count // wanted
        held.add(order[draw.randrange(a, b)])
    chosen = np.array(sorted(held))
    return conversations.take(np.delete(np.arange(count), chosen)), conversations.take(chosen)


def characters(messages: pa.ListArray) -> np.ndarray:
    """Characters of each conversation."""
    lengths = np.cumsum([0, *pc.utf8_length(pc.struct_field(pc.list_flatten(messages), "content")).to_pylist()])
    return np.diff(lengths[np.cumsum([0, *pc.list_value_length(messages).to_pylist()])])
