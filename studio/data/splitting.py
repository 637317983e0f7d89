"""Training and evaluation rows: a seeded share, spread evenly over short and long rows."""

from __future__ import annotations

import random

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
    table = conversations.table
    flat = table.column("messages").combine_chunks()
    lengths = pc.utf8_length(pc.struct_field(pc.list_flatten(flat), "content")).to_pylist()
    counts, sizes, at = pc.list_value_length(flat).to_pylist(), [], 0
    for n in counts:
        sizes.append(sum(lengths[at : at + n]))
        at += n
    return sizes
