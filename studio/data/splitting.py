"""Training and evaluation rows: a seeded share, spread evenly over short and long rows; an epoch by weights."""

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
    num = min(max(round(rows * share), 1), rows - 1) if share > 0 and rows > 1 else 0
    return num if most is None else min(num, max(1, most))


def split(
    conversations: Conversations,
    share: float,
    seed: int = 42,
    most: int | None = None,
    groups: np.ndarray | None = None,
) -> tuple[Conversations, Conversations]:
    """(train, eval). Stratified by length: of every run of neighbours in length one row goes to eval.

    Deterministic in rows, share and seed. Both have at least one row where there are two rows and share > 0.
    most: rows of eval. groups: a number for each row; rows of the same number stay on one side, so that eval may have
    fewer rows, and none where all are of one group.
    """
    count = len(conversations)
    num_held_out_rows = num_held_out(count, share, most)
    if not num_held_out_rows:
        return conversations, conversations.take([])
    sizes = conversations.sizes(characters)
    if groups is not None and len(np.unique(groups)) < count:
        chosen = _whole_groups(groups, sizes, num_held_out_rows, seed)
    else:
        chosen = np.array(sorted(_stratified(sizes, num_held_out_rows, seed)))
    return conversations.take(np.delete(np.arange(count), chosen)), conversations.take(chosen)


def _stratified(sizes: np.ndarray, num: int, seed: int) -> list[int]:
    """`num` different indices, one of every run of neighbours in size."""
    order, draw, count = np.argsort(sizes, kind="stable").tolist(), random.Random(seed), len(sizes)
    return [order[draw.randrange(k * count // num, (k + 1) * count // num)] for k in range(num)]


def _whole_groups(groups: np.ndarray, sizes: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Sorted indices of at most `num` rows in whole groups, or of the smallest group where each has more."""
    _, first, group_of, members = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == 1:
        return np.empty(0, np.int64)
    wanted = min(len(first) - 1, max(1, round(num * len(first) / len(groups))))
    chosen, room = [], num
    for group in _stratified(sizes[first], wanted, seed):
        if members[group] <= room:
            chosen.append(group)
            room -= members[group]
    return np.flatnonzero(np.isin(group_of, chosen or [int(members.argmin())]))


def prompt_groups(conversations: Conversations) -> np.ndarray:
    """A number for each row that is the same for rows with the same turns before the answer; some have no answer."""
    numbers: dict[tuple[str, ...], int] = {}
    groups = []
    for row in conversations:
        *before, last = row["messages"] or [{"role": "assistant"}]
        prompt = before if last["role"] == "assistant" else row["messages"]
        groups.append(numbers.setdefault(tuple(turn["content"] for turn in prompt), len(numbers)))
    return np.array(groups, np.int64)


def characters(messages: pa.ListArray) -> np.ndarray:
    """Characters of each conversation."""
    lengths = np.cumsum([0, *pc.utf8_length(pc.struct_field(pc.list_flatten(messages), "content")).to_pylist()])
    return np.diff(lengths[np.cumsum([0, *pc.list_value_length(messages).to_pylist()])])


def sample_indices(count: int, weight: float, seed: int) -> np.ndarray:
    """The rows of an epoch at this weight: all `count` rows floor(weight) times, and a random part once more."""
    whole = int(weight)
    part = np.random.default_rng(seed).permutation(count)[: round(count * (weight - whole))]
    return np.concatenate([np.tile(np.arange(count), whole), np.sort(part)]).astype(np.int64)


def shuffled(rows: int, seed: int, epoch: int) -> list[int]:
    """A permutation of `rows` rows for an epoch; depends only on seed and epoch."""
    numbers = list(range(rows))
    random.Random(f"{seed} {epoch}").shuffle(numbers)
    return numbers
