"""Log-probabilities of the target tokens with a gradient for each: for losses that compare whole answers.

As in loss.py the head is applied to the target positions only, a chunk at a time, and logits are never kept. Where the
head is not trained, its gradient is formed during forward, so that the head is applied once; else backward computes the
chunks' logits again.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.kernels import IGNORE_INDEX
from studio.worker.loss import LogitTransform, at_head, head_gradients, head_losses, head_weight


def log_probs(
    model: Any,
    inputs: dict[str, Any],
    kind: str,
    dtype: torch.dtype,
    target_positions: torch.Tensor | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """log p of every target token, float32 [targets], in the order of labels[:, 1:]. Parameters as of `loss.loss`.

    temperature: that the logits are divided by.
    """
    model_inputs = {key: value for key, value in inputs.items() if key != "labels"}
    labels = inputs["labels"]
    if kind == "chunked":
        return at_head(model, model_inputs, labels, target_positions, _Chunked(dtype, temperature))
    targets = labels[:, 1:].flatten()
    if target_positions is None:
        target_positions = (targets != IGNORE_INDEX).nonzero().flatten()
    logits = model(**model_inputs).logits[:, -labels.shape[1] :]  # virtual tokens stand before the row's own
    with torch.autocast(logits.device.type, enabled=False):
        values = logits[:, :-1].flatten(0, 1)[target_positions].float().div(temperature).log_softmax(-1)
        return values.gather(-1, targets[target_positions, None]).flatten()


def sums_by_sequence(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """[n]: the values summed over each of n sequences, which have so many of them, one after the other."""
    index = torch.repeat_interleave(lengths, output_size=len(values))
    return values.new_zeros(len(lengths)).index_add(0, index, values)


class _Chunked:
    """What at_head calls: the log-probabilities at the targets."""

    def __init__(self, dtype: torch.dtype, temperature: float):
        self.dtype, self.temperature = dtype, temperature

    def __call__(
        self, head: Any, hidden: torch.Tensor, targets: torch.Tensor, transform: LogitTransform
    ) -> torch.Tensor:
        weight, rows, row_values = head_weight(head)
        transform = transform._replace(temperature=self.temperature)
        arguments = (hidden, weight, getattr(head, "bias", None), targets, transform, self.dtype, rows, row_values)
        return HeadLogProbs.apply(*arguments) if torch.is_grad_enabled() else -head_losses(*arguments)


class HeadLogProbs(torch.autograd.Function):
    """log p(target) of every position, float32 [n]. Parameters as of HeadLoss."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        transform: LogitTransform,
        dtype: torch.dtype,
        rows: torch.Tensor | None = None,
        row_values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        needs_grad = ctx.needs_input_grad
        ctx.trains_head = needs_grad[1] or needs_grad[2] or row_values is not None
        ctx.transform, ctx.dtype, ctx.hidden_dtype = transform, dtype, hidden.dtype
        if ctx.trains_head:
            ctx.save_for_backward(hidden, weight, bias, targets, rows, row_values)
            return -head_losses(hidden, weight, bias, targets, transform, dtype, rows, row_values)
        losses, grads = head_gradients(hidden, weight, bias, targets, transform, dtype, rows, row_values, needs_grad)
        ctx.save_for_backward(grads[0])
        return -losses

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scales = -grad_output  # the gradients at hand are those of -log p
        if not ctx.trains_head:
            (grad_hidden,) = ctx.saved_tensors
            return (grad_hidden * scales[:, None]).to(ctx.hidden_dtype), *[None] * 7
        hidden, weight, bias, targets, rows, row_values = ctx.saved_tensors
        _, grads = head_gradients(
            hidden, weight, bias, targets, ctx.transform, ctx.dtype, rows, row_values, ctx.needs_input_grad, scales
        )
        grad_hidden, grad_weight, grad_bias, grad_row_values = (
            None if grad is None else grad.to(given.dtype)
            for grad, given in zip(grads, (hidden, weight, bias, row_values))
        )
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, grad_row_values
