"""Which rows one optimizer step sees, and how they are collated into micro-batches.

The order is a seeded permutation, drawn anew each epoch, cut into effective batches. How an effective batch is divided
into micro-batches (packed or padded; few or many; on one process or several) changes speed and memory only: the
gradient is the sum over the same rows, divided by the number of their target tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from studio.data.splitting import shuffled
from studio.kernels import IGNORE_INDEX, padded_width
from studio.worker.loss import target_indices
from studio.worker.packing import Layout, MicroBatch, Row, count_items, group_rows, sequences_of

EMPTY_ROW: Row = {"input_ids": [0, 0], "labels": [IGNORE_INDEX] * 2}  # for an effective batch without a trainable row


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


def mismatched_batches(rows: Sequence[Row], layout: Layout, rank: int = 0, world_size: int = 1) -> list[MicroBatch]:
    """One process's micro-batches of each prompt with another row's answer, for an estimate of the divergence (KTO)."""
    mismatched = [row["mismatched"] for row in rows if "mismatched" in row]
    groups = group_rows(split_rows_over_ranks(mismatched, world_size)[rank], layout) if mismatched else []
    return [
        layout.collate(group)
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


def shard_micro_batches(rows: list[Row], layout: Layout, rank: int, world_size: int) -> list[MicroBatch]:
    """The micro-batches of one process. All have as many, as FSDP gathers each layer on all processes at once."""
    per_rank = [group_rows(rank_rows, layout) for rank_rows in split_rows_over_ranks(rows, world_size)]
    micro_batches = [layout.collate(group) for group in per_rank[rank]]
    missing = max(map(len, per_rank)) - len(micro_batches)
    return micro_batches + [_without_targets(rows[0], layout) for _ in range(missing)]


def _without_targets(row: Row, layout: Layout) -> MicroBatch:
    """A micro-batch that adds nothing to the loss: the process takes part in the collective operations."""
    return layout.collate([{"input_ids": row["input_ids"][:2], "labels": [IGNORE_INDEX] * 2}])


class EvalBatches:
    """The held-out rows of one process, grouped once, collated when iterated. num_items: of all processes."""

    def __init__(self, rows: Sequence[Row], layout: Layout, rank: int = 0, world_size: int = 1):
        self.rows = rows
        self.layout = layout
        self.rank = rank
        self.world_size = world_size
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
        yield from map(self.collate, self.groups())

    def groups(self) -> list[tuple[int, ...]]:
        """The numbers of the rows of each micro-batch; of one that another process has more, none."""
        return [*map(tuple, self.micro_batches), *[()] * self.missing]

    def collate(self, numbers: Sequence[int]) -> MicroBatch:
        if not numbers:
            return _without_targets(self.rows[0], self.layout)
        return self.layout.collate([self.rows[number] for number in numbers])

    def leave_out(self, number: int) -> None:
        """Measure without this row from now on."""
        self.micro_batches = [[row for row in group if row != number] for group in self.micro_batches]
        self.num_items -= count_items([self.rows[number]])


def packing_statistics(rows: Iterable[Row], layout: Layout, effective_batch_size: int, seed: int) -> dict[str, float]:
    """The first epoch's micro-batches a step, its share of tokens that are padding, and of rows that are packed."""
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
