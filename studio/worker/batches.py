"""Which rows one optimizer step sees, and how they are laid out for the device.

The order is a seeded permutation, drawn anew each epoch, cut into effective batches. How the rows of one effective batch are then
divided into pieces that fit the device (end to end, or padded; a few or many; on one process or several) changes speed and memory
only: the gradient is the sum over the same rows, divided by the number of their trained tokens.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from studio.data.mixing import shuffled
from studio.kernels import IGNORE_INDEX, padded_width

MICRO_BATCH_COST = 64  # what one more piece costs, in padded tokens it may save

Row = dict[str, list[int]]
MicroBatch = dict[str, Any]
NOTHING: Row = {
    "input_ids": [0, 0],
    "labels": [IGNORE_INDEX, IGNORE_INDEX],
}  # stands for an effective batch of rows that cannot be trained on


class Layout(NamedTuple):
    """laid: rows end to end in one, positions beginning anew with each (packing); else one below the other, padded.

    tokens: most of them in a laid piece; rows: most of them in a padded one.
    """

    packed: bool
    max_tokens: int
    max_rows: int


class EffectiveBatchSampler:
    """A batch sampler: the row numbers of each effective batch. The same seed and epoch give the same order, whatever was drawn before."""

    def __init__(self, rows: int, effective: int, seed: int):
        self.rows, self.effective, self.seed, self.epoch = rows, effective, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.effective)

    def __iter__(self) -> Iterator[list[int]]:
        numbers = shuffled(self.rows, self.seed, self.epoch)
        for start in range(0, self.rows, self.effective):
            yield numbers[start : start + self.effective]


class StepLoader(torch.utils.data.DataLoader):
    """A loader whose items are optimizer steps: lists of pieces."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class MicroBatchCollator:
    """Collator: the rows of an effective batch to the list of pieces that this process (rank of world) works through."""

    def __init__(self, layout: Layout, rank: int = 0, world: int = 1):
        self.layout, self.rank, self.world = layout, rank, world

    def __call__(self, rows: list[Row]) -> list[MicroBatch]:
        """Each piece also holds `num_items_in_batch`, the trained tokens of the whole effective batch, `target_positions`, those of its own as numbers of a place in
        labels[:, 1:] (found here, so that no device is asked where they are), and the first one `num_tokens`, the batch's real tokens."""
        rows = [row for row in rows if row["input_ids"]] or [NOTHING]
        micro_batches = shard_micro_batches(rows, self.layout, self.rank, self.world)
        num_items_in_batch = sum(count_target_tokens(row) for row in rows)
        for place, micro_batch in enumerate(micro_batches):
            micro_batch |= {
                "num_items_in_batch": num_items_in_batch,
                "num_tokens": sum(len(row["input_ids"]) for row in rows) if place == 0 else 0,
                "target_positions": (micro_batch["labels"][:, 1:].flatten() != IGNORE_INDEX).nonzero().flatten(),
            }
        return micro_batches


def count_target_tokens(row: Row) -> int:
    """Tokens of a row that count in the loss: the first is never predicted."""
    return len(row["labels"]) - 1 - row["labels"][1:].count(IGNORE_INDEX)


def split_rows_over_ranks(rows: list[Row], world: int) -> list[list[Row]]:
    """Rows to processes, so that each has about as many tokens: the longest first, to whoever has least."""
    if world == 1:
        return [list(rows)]
    parts: list[list[Row]] = [[] for _ in range(world)]
    loads = [0] * world
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        least = loads.index(min(loads))
        parts[least].append(row)
        loads[least] += len(row["input_ids"])
    return parts


def group_rows(rows: list[Row], layout: Layout) -> list[list[Row]]:
    """Rows to pieces: best-fit decreasing where they are laid end to end, else the cheapest cut of the rows sorted by length."""
    ordered = sorted(rows, key=lambda row: -len(row["input_ids"]))
    return _best_fit(ordered, layout.max_tokens) if layout.packed else _cheapest_cut(ordered, layout.max_rows)


def _best_fit(ordered: list[Row], room: int) -> list[list[Row]]:
    """Each row into the fullest piece that still has room for it (best-fit decreasing); of equally full ones the first begun. O(n log n)."""
    micro_batches: list[list[Row]] = []
    left: list[tuple[int, int]] = []  # (free tokens, piece), sorted
    for row in ordered:
        size = len(row["input_ids"])
        at = bisect_left(left, (size, 0))
        free, place = left.pop(at) if at < len(left) else (room, len(micro_batches))
        if place == len(micro_batches):
            micro_batches.append([])
        micro_batches[place].append(row)
        insort(left, (free - size, place))
    return micro_batches


def _cheapest_cut(ordered: list[Row], most: int) -> list[list[Row]]:
    """The cut into runs of at most `most` rows with the fewest padded tokens, a piece itself counted as PIECE_COST (dynamic programme)."""
    widths = [padded_width(len(row["input_ids"])) for row in ordered]
    best, cut = [0.0], [0]
    for end in range(1, len(ordered) + 1):
        cost, start = min(
            (best[start] + widths[start] * (end - start) + MICRO_BATCH_COST, start)
            for start in range(max(0, end - most), end)
        )
        best.append(cost)
        cut.append(start)
    micro_batches, end = [], len(ordered)
    while end:
        micro_batches.append(ordered[cut[end] : end])
        end = cut[end]
    return micro_batches[::-1]


def collate(rows: list[Row], packed: bool) -> MicroBatch:
    """One piece of these rows, as tensors."""
    return _packed(rows) if packed else _padded(rows)


def _padded(rows: list[Row]) -> MicroBatch:
    """int64 [rows, width]. No mask is needed: what fills a row up stands behind it, and attention looks back only."""
    width = padded_width(max(len(row["input_ids"]) for row in rows))
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORE_INDEX)
    for place, row in enumerate(rows):
        ids[place, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
        labels[place, : len(row["labels"])] = torch.as_tensor(row["labels"])
    return {"input_ids": ids, "labels": labels}


def _packed(rows: list[Row]) -> MicroBatch:
    """int64 [1, width]; positions begin at 0 with each row, and no row's first token is predicted from the row before it.

    cu_seq_lens (int32, on the device) say where rows begin and end, under the names that transformers' attention functions know;
    row_starts are the same as Python ints, for attention that goes row by row (worker/attention.py).
    What fills the piece up is a row of its own.
    """
    ids, labels, positions, starts = [], [], [], [0]
    for row in rows:
        ids += row["input_ids"]
        labels += [IGNORE_INDEX, *row["labels"][1:]]
        positions += range(len(row["input_ids"]))
        starts.append(len(ids))
    fill = padded_width(len(ids)) - len(ids)
    if fill:
        ids += [0] * fill
        labels += [IGNORE_INDEX] * fill
        positions += range(fill)
        starts.append(len(ids))
    where = torch.tensor(starts, dtype=torch.int32)
    longest = max(after - before for before, after in zip(starts, starts[1:]))
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "cu_seq_lens_q": where,
        "cu_seq_lens_k": where,
        "max_length_q": longest,
        "max_length_k": longest,
        "row_starts": starts,
        "use_cache": False,
    }  # with a cache transformers takes the positions for a continued row, not for several


def shard_micro_batches(rows: list[Row], layout: Layout, rank: int, world: int) -> list[MicroBatch]:
    """The pieces of one process. All have as many: a model that is split over them is put together by all at once, piece by piece."""
    per_rank = [group_rows(part, layout) for part in split_rows_over_ranks(rows, world)]
    most = max(map(len, per_rank))
    return [collate(group, layout.packed) for group in per_rank[rank]] + [
        _idle(rows[0], layout.packed) for _ in range(most - len(per_rank[rank]))
    ]


class EvalBatches:
    """Rows that are gone through again and again, divided into pieces once and made into tensors only when their turn comes.

    trained: their trained tokens on all processes together.
    """

    def __init__(self, rows: Sequence[Row], layout: Layout, rank: int = 0, world: int = 1):
        self.rows, self.layout = rows, layout
        sizes, self.num_target_tokens = [], 0
        for number, row in enumerate(rows):
            sizes.append(
                {"input_ids": range(len(row["input_ids"])), "row": number}
            )  # the length is enough to divide them
            self.num_target_tokens += count_target_tokens(row)
        per_rank = [group_rows(part, layout) for part in split_rows_over_ranks(sizes, world)]
        self.micro_batches = [[row["row"] for row in group] for group in per_rank[rank]]
        self.idle = max(map(len, per_rank)) - len(self.micro_batches)  # all processes go through as many

    def __len__(self) -> int:
        return len(self.micro_batches) + self.idle

    def __iter__(self) -> Iterator[MicroBatch]:
        for numbers in self.micro_batches:
            yield collate([self.rows[number] for number in numbers], self.layout.packed)
        for _ in range(self.idle):
            yield _idle(self.rows[0], self.layout.packed)


def _idle(row: Row, packed: bool) -> MicroBatch:
    """Takes part, and adds nothing."""
    return collate([{"input_ids": row["input_ids"][:2], "labels": [IGNORE_INDEX] * 2}], packed)


def packing_statistics(rows: Iterable[Row], layout: Layout, effective: int, seed: int) -> dict[str, float]:
    """What the layout makes of the first epoch: pieces a step, and the shares of tokens that only fill up, of rows that share a piece."""
    rows = list(rows)
    real = held = micro_batches = together = 0
    order = EffectiveBatchSampler(len(rows), effective, seed)
    for numbers in order:
        for group in group_rows([rows[number] for number in numbers], layout):
            lengths = [len(row["input_ids"]) for row in group]
            real += sum(lengths)
            held += padded_width(sum(lengths)) if layout.packed else padded_width(max(lengths)) * len(group)
            micro_batches += 1
            together += len(group) if len(group) > 1 else 0
    return {
        "micro_batches_per_step": round(micro_batches / max(1, len(order)), 2),
        "padding": round(1 - real / max(1, held), 4),
        "packed": round(together / max(1, len(rows)), 4) if layout.packed else 0.0,
    }
