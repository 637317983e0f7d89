"""Training and evaluation rows: a seeded share, spread evenly over short and long rows."""

from __future__ import annotations

import random

import numpy as np
import pyarrow.compute as pc

from studio.data.dataset import Conversations


def split(conversations: Conversations, share: float, seed: int = 42) -> tuple[Conversations, Conversations]:
    """(train, eval). Stratified by length: of every run of neighbours in length one row goes to eval.

    The same rows, share and seed give the same split. At least one row each when there are two rows and share > 0.
    """
    count = len(conversations)
    wanted = min(max(round(count * share), 1), count - 1) if share > 0 and count > 1 else 0
    if not wanted:
        return conversations, conversations.take([])
    sizes = _sizes(conversations)
    order = sorted(range(count), key=lambda n: (sizes[n], n))
    draw, held = random.Random(seed), set()
    for k in range(wanted):
        a, b = k * count // wanted, (k + 1) * count // wanted
        held.add(order[draw.randrange(a, b)])
    rest = [n for n in range(count) if n not in held]
    return conversations.take(rest), conversations.take(sorted(held))


def _sizes(conversations: Conversations) -> list[int]:
    """Characters of each conversation."""
    sizes = []
    for part in conversations.table.column("messages").chunks:  # part by part: together they would be copied
        lengths = np.cumsum([0, *pc.utf8_length(pc.struct_field(pc.list_flatten(part), "content")).to_pylist()])
        ends = np.cumsum([0, *pc.list_value_length(part).to_pylist()])
        sizes += np.diff(lengths[ends]).tolist()
    return sizes
