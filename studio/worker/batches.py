"""Which rows one optimizer step sees, and how they are collated into micro-batches.

The order is a seeded permutation, drawn anew each epoch, cut into effective batches. How an effective batch is divided
into micro-batches (packed or padded; few or many; on one process or several) changes speed and memory only: the
gradient is the sum over the same rows, divided by the number of their target tokens.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from studio.data.mixing import shuffled
from studio.kernels import IGNORE_INDEX, padded_width
from studio.resolve import Resolved
from studio.worker.loss import target_indices

MICRO_BATCH_COST = 64  # padded tokens that one more micro-batch must save to be worth it

Row = dict[str, Any]
MicroBatch = dict[str, Any]
EMPTY_ROW: Row = {"input_ids": [0, 0], "labels": [IGNORE_INDEX] * 2}  # for an effective batch without a trainable row


class Layout(NamedTuple):
    """packed: several rows in one, positions beginning anew with each; else one row below the other, padded.

    max_tokens: of a packed micro-batch; max_rows: of a padded one.
    """

    packed: bool
    max_tokens: int
    max_rows: int

    @classmethod
    def of(cls, resolved: Resolved) -> Layout:
        return cls(resolved.packed, resolved.micro_batch_tokens, resolved.batch_size)


class EffectiveBatchSampler:
    """A batch sampler: the row numbers of each effective batch. They depend on seed and epoch only."""

    def __init__(self, rows: int, effective_batch_size: int, seed: int, repeats: int = 1):
        """repeats: times that each batch comes, one after the other."""
        self.rows, self.effective_batch_size, self.repeats = rows, effective_batch_size, repeats
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.effective_batch_size) * self.repeats

    def __iter__(self) -> Iterator[list[int]]:
        numbers = shuffled(self.rows, self.seed, self.epoch)
        for start in range(0, self.rows, self.effective_batch_size):
            for _ in range(self.repeats):
                yield numbers[start : start + self.effective_batch_size]


class StepLoader(torch.utils.data.DataLoader):
    """A loader whose items are optimizer steps: lists of micro-batches."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class MicroBatchCollator:
    """Collates the rows of an effective batch into the micro-batches of one process (rank of world_size)."""

    def __init__(self, layout: Layout, rank: int = 0, world_size: int = 1):
        self.layout, self.rank, self.world_size = layout, rank, world_size

    def __call__(self, rows: list[Row]) -> list[MicroBatch]:
        """Each micro-batch also holds

        num_items_in_batch: the target tokens of the whole effective batch; its rows where answers are compared;
        num_tokens: on the first micro-batch, the effective batch's tokens without padding, else 0;
        target_positions: indices into labels[:, 1:].flatten() that hold a target (found on the CPU: no GPU sync).
        Where answers are compared, those of `answers_of` too; and the micro-batches of `mismatched_batches` come first.
        """
        rows = [row for row in rows if row["input_ids"]] or [EMPTY_ROW]
        num_items_in_batch = count_items(rows)
        micro_batches = shard_micro_batches(rows, self.layout, self.rank, self.world_size)
        micro_batches = mismatched_batches(rows, self.layout, self.rank, self.world_size) + micro_batches
        for index, micro_batch in enumerate(micro_batches):
            micro_batch |= {
                "num_items_in_batch": num_items_in_batch,
                "num_tokens": sum(len(row["input_ids"]) for row in rows) if index == 0 else 0,
                "target_positions": target_indices(micro_batch["labels"]),
            }
        return micro_batches


def count_target_tokens(row: Row) -> int:
    """Tokens of a row that count in the loss: the first is never predicted."""
    return len(row["labels"]) - 1 - row["labels"][1:].count(IGNORE_INDEX)


def is_compared(row: Row) -> bool:
    """Whether the row is a pair, or an answer with a verdict."""
    return "second" in row or "good" in row


def count_items(rows: Sequence[Row]) -> int:
    """What the loss of these rows is divided by: target tokens, or rows where answers are compared."""
    return sum(1 if is_compared(row) else count_target_tokens(row) for row in rows)


def sequences_of(row: Row) -> list[Row]:
    """The sequences of a row: both answers of a pair, else the row itself."""
    second = row.get("second")
    if not second:
        return [row]
    parts = (slice(second), slice(second, None))
    return [{"input_ids": row["input_ids"][part], "labels": row["labels"][part]} for part in parts]


def row_width(row: Row) -> int:
    """Tokens of a row's longest sequence."""
    return max(row.get("second", 0), len(row["input_ids"]) - row.get("second", 0))


def answers_of(rows: Sequence[Row], sequences: Sequence[Row]) -> MicroBatch:
    """What a loss that compares answers needs beside the model's inputs, a number for each of the n sequences.

    answer_lengths: int64 [n], target tokens; good: bool [n]; reference: float32 [n], where the rows have it.
    """
    lengths = [count_target_tokens(sequence) for sequence in sequences]
    good = [is_good for row in rows for is_good in ((True, False) if row.get("second") else (row.get("good", True),))]
    answers: MicroBatch = {"answer_lengths": torch.tensor(lengths), "good": torch.tensor(good)}
    if "reference" in rows[0]:
        answers["reference"] = torch.tensor([value for row in rows for value in row["reference"]])
    return answers


def mismatched_batches(rows: Sequence[Row], layout: Layout, rank: int = 0, world_size: int = 1) -> list[MicroBatch]:
    """One process's micro-batches of each prompt with another row's answer, for an estimate of the divergence (KTO)."""
    mismatched = [row["mismatched"] for row in rows if "mismatched" in row]
    groups = group_rows(split_rows_over_ranks(mismatched, world_size)[rank], layout) if mismatched else []
    return [
        collate(group, layout.packed)
        | {"mismatched": True, "sequences": len(group)}
        | ({"reference": torch.tensor([row["reference"][0] for row in group])} if "reference" in group[0] else {})
        for group in groups
    ]


def split_rows_over_ranks(rows: list[Row], world_size: int) -> list[list[Row]]:
    """Rows of each process, with about as many tokens each: the longest row first, to whoever has least."""
    if world_size == 1:
        return [list(rows)]
    per_rank: list[list[Row]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        least = loads.index(min(loads))
        per_rank[least].append(row)
        loads[least] += len(row["input_ids"])
    return per_rank


def group_rows(rows: list[Row], layout: Layout) -> list[list[Row]]:
    """The rows of each micro-batch: best-fit decreasing where packed, else the cheapest cut of the rows by length."""
    if layout.packed:
        return _best_fit(sorted(rows, key=lambda row: -len(row["input_ids"])), layout.max_tokens)
    return _cheapest_cut(sorted(rows, key=lambda row: -row_width(row)), layout.max_rows)


def _best_fit(longest_first: list[Row], max_tokens: int) -> list[list[Row]]:
    """Each row goes into the fullest micro-batch with room for it; of equally full ones into the first. O(n log n)."""
    micro_batches: list[list[Row]] = []
    free_tokens: list[tuple[int, int]] = []  # (free tokens, index of the micro-batch), sorted
    for row in longest_first:
        length = len(row["input_ids"])
        at = bisect_left(free_tokens, (length, 0))
        if at < len(free_tokens):
            free, index = free_tokens.pop(at)
        else:
            free, index = max_tokens, len(micro_batches)
            micro_batches.append([])
        micro_batches[index].append(row)
        insort(free_tokens, (free - length, index))
    return micro_batches


def _cheapest_cut(longest_first: list[Row], max_rows: int) -> list[list[Row]]:
    """The cut with the fewest padded tokens, MICRO_BATCH_COST counted for each micro-batch (dynamic programme)."""
    widths = [padded_width(row_width(row)) * (2 if row.get("second") else 1) for row in longest_first]
    costs = [0.0]  # of the first n rows, cut in the cheapest way
    cuts = [0]  # where the last micro-batch of the first n rows begins
    for end in range(1, len(longest_first) + 1):
        cost, start = min(
            (costs[start] + widths[start] * (end - start) + MICRO_BATCH_COST, start)
            for start in range(max(0, end - max_rows), end)
        )
        costs.append(cost)
        cuts.append(start)
    micro_batches = []
    end = len(longest_first)
    while end:
        micro_batches.append(longest_first[cuts[end] : end])
        end = cuts[end]
    return micro_batches[::-1]


def collate(rows: list[Row], packed: bool) -> MicroBatch:
    """One micro-batch of these rows, as tensors; of pairs both sequences, one after the other."""
    sequences = [sequence for row in rows for sequence in sequences_of(row)]
    micro_batch = _pack(sequences) if packed else _pad(sequences)
    if not is_compared(rows[0]):
        return micro_batch
    lengths = torch.tensor([len(sequence["input_ids"]) for sequence in sequences])
    starts = lengths.cumsum(0) - lengths if packed else torch.arange(len(lengths)) * micro_batch["input_ids"].shape[1]
    return micro_batch | answers_of(rows, sequences) | {"last_positions": starts + lengths - 1}


def _pad(rows: list[Row]) -> MicroBatch:
    """int64 [rows, width], padded on the right: attention is causal, so no mask is needed."""
    width = padded_width(max(len(row["input_ids"]) for row in rows))
    input_ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORE_INDEX)
    for index, row in enumerate(rows):
        input_ids[index, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
        labels[index, : len(row["labels"])] = torch.as_tensor(row["labels"])
    return {"input_ids": input_ids, "labels": labels}


def _pack(rows: list[Row]) -> MicroBatch:
    """int64 [1, width]; positions begin at 0 with each row, and no row's first token is predicted from the row before.

    cu_seq_lens (int32, on the device) say where rows begin and end, under the names of transformers' attention
    functions; row_starts are the same as Python ints, for attention that goes row by row (worker/attention.py). The
    padding is a row of its own.
    """
    padding = padded_width(sum(len(row["input_ids"]) for row in rows)) - sum(len(row["input_ids"]) for row in rows)
    padding_row = [{"input_ids": [0] * padding, "labels": [IGNORE_INDEX] * padding}] if padding else []
    input_ids: list[int] = []
    labels: list[int] = []
    position_ids: list[int] = []
    row_starts = [0]
    for row in [*rows, *padding_row]:
        input_ids += row["input_ids"]
        labels += [IGNORE_INDEX, *row["labels"][1:]]
        position_ids += range(len(row["input_ids"]))
        row_starts.append(len(input_ids))
    cu_seq_lens = torch.tensor(row_starts, dtype=torch.int32)
    longest = max(end - start for start, end in zip(row_starts, row_starts[1:]))
    return {
        "input_ids": torch.tensor([input_ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([position_ids]),
        "cu_seq_lens_q": cu_seq_lens,
        "cu_seq_lens_k": cu_seq_lens,
        "max_length_q": longest,
        "max_length_k": longest,
        "row_starts": row_starts,
        "use_cache": False,  # with a cache transformers takes the positions for one continued row
    }


def shard_micro_batches(rows: list[Row], layout: Layout, rank: int, world_size: int) -> list[MicroBatch]:
    """The micro-batches of one process. All have as many, as FSDP gathers each layer on all processes at once."""
    per_rank = [group_rows(rank_rows, layout) for rank_rows in split_rows_over_ranks(rows, world_size)]
    micro_batches = [collate(group, layout.packed) for group in per_rank[rank]]
    missing = max(map(len, per_rank)) - len(micro_batches)
    return micro_batches + [_without_targets(rows[0], layout.packed) for _ in range(missing)]


def _without_targets(row: Row, packed: bool) -> MicroBatch:
    """A micro-batch that adds nothing to the loss: the process takes part in the collective operations."""
    return collate([{"input_ids": row["input_ids"][:2], "labels": [IGNORE_INDEX] * 2}], packed)


class EvalBatches:
    """The held-out rows of one process, grouped once, collated when iterated. num_items: of all processes."""

    def __init__(self, rows: Sequence[Row], layout: Layout, rank: int = 0, world_size: int = 1):
        self.rows, self.layout, self.rank, self.world_size = rows, layout, rank, world_size
        self.num_items = 0
        lengths = []  # rows reduced to what grouping needs
        for number, row in enumerate(rows):
            length = {"input_ids": range(len(row["input_ids"])), "row": number}
            lengths.append(length | ({"second": row["second"]} if "second" in row else {}))
            self.num_items += count_items([row])
        per_rank = [group_rows(rank_rows, layout) for rank_rows in split_rows_over_ranks(lengths, world_size)]
        self.micro_batches = [[row["row"] for row in group] for group in per_rank[rank]]
        self.missing = max(map(len, per_rank)) - len(self.micro_batches)  # all processes iterate over as many

    def __len__(self) -> int:
        return len(self.micro_batches) + self.missing

    def __iter__(self) -> Iterator[MicroBatch]:
        if self.rows and "mismatched" in self.rows[0]:
            yield from mismatched_batches(self.rows, self.layout, self.rank, self.world_size)
        for numbers in self.micro_batches:
            yield collate([self.rows[number] for number in numbers], self.layout.packed)
        for _ in range(self.missing):
            yield _without_targets(self.rows[0], self.layout.packed)


def packing_statistics(rows: Iterable[Row], layout: Layout, effective_batch_size: int, seed: int) -> dict[str, float]:
    """Of the first epoch: micro-batches a step, the share of tokens that are padding, and of rows that are packed."""
    rows = list(rows)
    num_tokens = num_padded_tokens = num_micro_batches = num_packed_rows = 0
    batches = EffectiveBatchSampler(len(rows), effective_batch_size, seed)
    for numbers in batches:
        for group in group_rows([rows[number] for number in numbers], layout):
            lengths = [len(sequence["input_ids"]) for row in group for sequence in sequences_of(row)]
            num_tokens += sum(lengths)
            num_micro_batches += 1
            if layout.packed:
                num_padded_tokens += padded_width(sum(lengths))
                num_packed_rows += len(group) if len(group) > 1 else 0
            else:
                num_padded_tokens += padded_width(max(lengths)) * len(lengths)
    return {
        "micro_batches_per_step": round(num_micro_batches / max(1, len(batches)), 2),
        "padding": round(1 - num_tokens / max(1, num_padded_tokens), 4),
        "packed": round(num_packed_rows / max(1, len(rows)), 4),
    }
