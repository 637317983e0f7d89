"""Which rows share a micro-batch, packed or padded, and how they become its tensors."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from studio.kernels import IGNORE_INDEX, padded_width
from studio.resolve import Resolved

MICRO_BATCH_COST = 64  # padded tokens that one more micro-batch must save to be worth it

BOOKKEEPING = (  # keys of a micro-batch that are no inputs of the model or its loss
    "num_items_in_batch", "items", "num_tokens", "target_positions", "answer_lengths", "good", "reference",
    "mismatched", "sequences", "last_positions", "advantages", "token_weights", "before"
)  # fmt: skip

Row = dict[str, Any]
MicroBatch = dict[str, Any]


class Layout(NamedTuple):
    """packed: several rows in one, positions beginning anew with each; else one row below the other, padded.

    max_tokens: of a packed micro-batch; max_rows: of a padded one; max_width: tokens beyond which no row is padded,
    as learned positions end there (0: none).
    """

    packed: bool
    max_tokens: int
    max_rows: int
    max_width: int = 0

    @classmethod
    def of(cls, resolved: Resolved, max_width: int = 0) -> Layout:
        return cls(resolved.packed, resolved.micro_batch_tokens, resolved.batch_size, max_width)

    def collate(self, rows: list[Row]) -> MicroBatch:
        return collate(rows, self.packed, self.max_width)


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


def collate(rows: list[Row], packed: bool, max_width: int = 0) -> MicroBatch:
    """One micro-batch of these rows, as tensors; of pairs both sequences, one after the other."""
    sequences = [sequence for row in rows for sequence in sequences_of(row)]
    micro_batch = _pack(sequences) if packed else _pad(sequences, max_width)
    if not is_compared(rows[0]):
        return micro_batch
    lengths = torch.tensor([len(sequence["input_ids"]) for sequence in sequences])
    starts = lengths.cumsum(0) - lengths if packed else torch.arange(len(lengths)) * micro_batch["input_ids"].shape[1]
    return micro_batch | answers_of(rows, sequences) | {"last_positions": starts + lengths - 1}


def model_inputs(micro_batch: MicroBatch, device: Any) -> dict[str, Any]:
    """What the model and the loss are given of a micro-batch, on the device."""
    return {key: to_device(value, device) for key, value in micro_batch.items() if key not in BOOKKEEPING}


def to_device(value: Any, device: Any) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def left_padded(prompts: Sequence[list[int]], device: Any) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask of prompts to go on from, int64 [prompts, longest], padded on the left."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    ids = [[0] * count + prompt for count, prompt in zip(padding, prompts, strict=True)]
    mask = [[0] * count + [1] * len(prompt) for count, prompt in zip(padding, prompts, strict=True)]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _pad(rows: list[Row], max_width: int) -> MicroBatch:
    """int64 [rows, width], padded on the right, each by `padding` tokens: attention is causal, so no mask is needed."""
    longest = max(len(row["input_ids"]) for row in rows)
    width = padded_width(longest)
    if max_width:
        width = max(longest, min(width, max_width))
    input_ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORE_INDEX)
    for index, row in enumerate(rows):
        input_ids[index, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
        labels[index, : len(row["labels"])] = torch.as_tensor(row["labels"])
    return {"input_ids": input_ids, "labels": labels, "padding": [width - len(row["input_ids"]) for row in rows]}


def _pack(rows: list[Row]) -> MicroBatch:
    """int64 [1, width]; positions begin at 0 with each row, and no row's first token is predicted from the row before.

    cu_seq_lens (int32, on the device) say where rows begin and end, under the names of transformers' attention
    functions; row_starts are the same as Python ints, for attention that goes row by row (worker/attention.py). The
    padding is a row of its own, all at position 0: rotary frequencies may follow the furthest position.
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
    position_ids[len(position_ids) - padding :] = [0] * padding
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
