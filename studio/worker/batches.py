"""Rows to batches: padded to a few lengths only, because every new shape costs the CPU a newly compiled kernel."""

from __future__ import annotations

from typing import Any

import torch

STEP = 64  # lengths are rounded up to multiples of this


class Batches:
    """Collator. Rows are {"input_ids": [...], "labels": [...]}; gives int64 tensors [batch, length] and `tokens`, the real ones."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in rows)
        width = -(-longest // STEP) * STEP
        ids = torch.zeros((len(rows), width), dtype=torch.int64)  # what stands in the padding is never looked at
        labels = torch.full((len(rows), width), -100)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for place, row in enumerate(rows):
            count = len(row["input_ids"])
            ids[place, :count] = torch.as_tensor(row["input_ids"])
            labels[place, :count] = torch.as_tensor(row["labels"])
            mask[place, :count] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": mask, "tokens": int(mask.sum())}
