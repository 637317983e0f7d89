"""Log-probabilities of the target tokens with a gradient for each: for losses that compare whole answers.

As in loss.py the head is applied to the target positions only, a chunk at a time, and logits are never kept. Where the
head is not trained, its gradient is formed during forward, so that the head is applied once; else backward computes the
chunks' logits again.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.worker.head import Head, head_gradients, head_losses
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
            return HeadLogProbs.apply(hidden, head.weight, head.bias, head.row_values, head, targets)

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


class HeadLogProbs(torch.autograd.Function):
    """log p(target) of every position, float32 [n]. Parameters as of HeadLoss."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        row_values: torch.Tensor | None,
        head: Head,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        needs_grad = ctx.needs_input_grad
        ctx.trains_head = needs_grad[1] or needs_grad[2] or row_values is not None
        ctx.head, ctx.hidden_dtype = head, hidden.dtype
        if ctx.trains_head:
            ctx.save_for_backward(hidden, targets)
            return -head_losses(hidden, head, targets)
        losses, grads = head_gradients(hidden, head, targets, needs_grad)
        ctx.save_for_backward(grads[0])
        return -losses

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scales = -grad_output  # the gradients at hand are those of -log p
        if not ctx.trains_head:
            (grad_hidden,) = ctx.saved_tensors
            return (grad_hidden * scales[:, None]).to(ctx.hidden_dtype), *[None] * 5
        (hidden, targets), head = ctx.saved_tensors, ctx.head
        _, grads = head_gradients(hidden, head, targets, ctx.needs_input_grad, scales)
        inputs = (hidden, head.weight, head.bias, head.row_values)
        return *(None if grad is None else grad.to(tensor.dtype) for grad, tensor in zip(grads, inputs)), None, None
