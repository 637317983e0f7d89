"""Log-probabilities of the target tokens with a gradient for each: for losses that compare whole answers.

As in loss.py the head is applied to the target positions only, a chunk at a time, and logits are never kept.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.worker.head import Head, HeadLosses, head_losses
from studio.worker.loss import at_head, forward, target_indices


def log_probs(
    model: Any,
    inputs: dict[str, Any],
    kind: str,
    dtype: torch.dtype,
    target_positions: torch.Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, Any]:
    """(log p of every target token, float32 [targets], as labels[:, 1:], at a temperature; the model's output)."""
    labels = inputs["labels"]
    if kind == "chunked":

        def compute(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            head = head._replace(transform=head.transform._replace(temperature=temperature))
            if not torch.is_grad_enabled():
                return -head_losses(hidden, head, targets)
            return -HeadLosses.apply(hidden, head.weight, head.bias, head.row_values, head, targets, False)

        return at_head(model, inputs, dtype, target_positions, compute)
    positions = target_indices(labels) if target_positions is None else target_positions
    output = forward(model, inputs)
    logits = output.logits[:, -labels.shape[1] :]  # virtual tokens stand before the row's own
    with torch.autocast(logits.device.type, enabled=False):
        values = logits[:, :-1].flatten(0, 1)[positions].float().div(temperature).log_softmax(-1)
        return values.gather(-1, labels[:, 1:].flatten()[positions, None]).flatten(), output


def sums_by_sequence(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[n]: the sum over each of n sequences. values: of all, one after the other; lengths: [n], values of each."""
    index = torch.repeat_interleave(lengths, output_size=len(values))
    return values.new_zeros(len(lengths)).index_add(0, index, values)
