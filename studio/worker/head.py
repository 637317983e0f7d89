"""The head of a language model at chosen positions: cross entropy and its gradients, a chunk of logits at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from studio.kernels import HEAD_GRAD_POSITIONS, logit_chunk_bytes


def apart(hidden: torch.Tensor) -> torch.Tensor:
    """A copy of the last position of each row, [rows, 1, width], laid out as if there had been no others.

    Of a view of longer rows a CPU's 16-bit product with a frozen weight makes a transposed copy of the whole weight.
    """
    return hidden[:, -1:].detach().clone(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def last_position(model: Any) -> Iterator[None]:
    """While the block lasts a model on a CPU makes logits of the last position alone, apart from the others."""
    head = model.get_output_embeddings()
    if head is None or next(model.parameters()).device.type != "cpu":
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (apart(args[0]),))
    try:
        yield
    finally:
        hook.remove()


class LogitTransform(NamedTuple):
    """What is done to head(hidden) before the softmax: scale, then a soft cap (Gemma 2: cap · tanh(x / cap)), then
    division by the temperature that tokens are sampled at.
    """

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, config: Any) -> LogitTransform:
        """Granite divides by logits_scaling, Cohere multiplies by logit_scale, Falcon-H1 by lm_head_multiplier."""
        text = config.get_text_config()
        scale = getattr(text, "logit_scale", None) or getattr(text, "lm_head_multiplier", None) or 1.0
        divisor = getattr(text, "logits_scaling", None) or 1.0
        return cls(scale / divisor, getattr(text, "final_logit_softcapping", None))


class Head(NamedTuple):
    """What makes logits of hidden states.

    weight: [vocabulary, width]; bias: [vocabulary] or None; dtype: of the products; rows: [k] of int64, rows of the
    weight that `row_values` [k, width] replace, which get their own gradient (peft trains them alone).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    transform: LogitTransform
    dtype: torch.dtype
    rows: torch.Tensor | None = None
    row_values: torch.Tensor | None = None

    @classmethod
    def of(cls, module: Any, transform: LogitTransform, dtype: torch.dtype) -> Head:
        bias, adapter = getattr(module, "bias", None), getattr(module, "token_adapter", None)
        if adapter is None or not adapter.active_adapters or adapter.disable_adapters:
            return cls(module.weight, bias, transform, dtype)
        (name,) = adapter.active_adapters
        weight = adapter.get_base_layer().weight
        rows = torch.tensor(adapter.token_indices[name], device=weight.device)
        return cls(weight, bias, transform, dtype, rows, adapter.trainable_tokens_delta[name])

    def narrow_weight(self) -> torch.Tensor:
        """The weight in the type of the products, with its replaced rows."""
        weight = self.weight.to(self.dtype)
        return weight if self.rows is None else weight.index_copy(0, self.rows, self.row_values.to(self.dtype))

    def chunk_size(self, count: int) -> int:
        """Positions of `count` whose float32 logits exist at once."""
        device = self.weight.device
        memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
        return max(1, min(count, logit_chunk_bytes(device.type, memory) // (4 * len(self.weight))))


class HeadLosses(torch.autograd.Function):
    """-log p(target) by position, float32 [n], or their sum, from hidden states [n, width] and targets [n] of int64.

    Gradients are formed during forward, so that the head is applied once; only for a trained head with a loss by
    position, whose weights in the gradient are not known yet, does backward compute the logits again.
    weight, bias, row_values: those of the head, once more, since autograd follows only what is passed by itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        row_values: torch.Tensor | None,
        head: Head,
        targets: torch.Tensor,
        summed: bool,
    ) -> torch.Tensor:
        needs_grad = ctx.needs_input_grad
        trains_head = needs_grad[1] or needs_grad[2] or row_values is not None
        ctx.is_formed = summed or not trains_head
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias, row_values)]
        if not ctx.is_formed:
            ctx.head = head
            ctx.save_for_backward(hidden, targets)
            return head_losses(hidden, head, targets)
        losses, grads = head_gradients(hidden, head, targets, needs_grad)
        ctx.save_for_backward(*grads)
        return losses.sum() if summed else losses

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.is_formed:
            scale = grad_output[:, None] if grad_output.dim() else grad_output
            pairs = zip(ctx.saved_tensors, ctx.dtypes)
            grads = [None if grad is None else _scale_and_cast(grad, scale, dtype) for grad, dtype in pairs]
        else:
            hidden, targets = ctx.saved_tensors
            _, formed = head_gradients(hidden, ctx.head, targets, ctx.needs_input_grad, grad_output)
            grads = [None if grad is None else grad.to(dtype) for grad, dtype in zip(formed, ctx.dtypes)]
        return *grads, None, None, None


def head_gradients(
    hidden: torch.Tensor,
    head: Head,
    targets: torch.Tensor,
    needs_grad: tuple[bool, ...],
    scales: torch.Tensor | None = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """(-log p(target) [n], gradients of their sum by hidden, weight, bias and row_values).

    needs_grad: in HeadLosses.forward's order; scales: [n], by which each position counts in the sum, None for 1.
    """
    count, vocabulary = len(hidden), len(head.weight)
    narrow_hidden, narrow_weight = hidden.to(head.dtype), head.narrow_weight()
    losses = hidden.new_zeros(count, dtype=torch.float32)
    grad_hidden = torch.empty_like(narrow_hidden)
    grad_weight = grad_bias = grad_row_values = None
    if not count:
        grad_weight = torch.zeros_like(narrow_weight)
    if head.bias is not None and needs_grad[2]:
        grad_bias = torch.zeros_like(head.bias, dtype=torch.float32)
    if head.row_values is not None:
        grad_row_values = torch.zeros_like(head.row_values, dtype=torch.float32)
    # Logits exist for a chunk of positions; their gradients, for a block of chunks, share one product for the
    # weight.
    chunk = head.chunk_size(count)
    block = max(chunk, min(count, HEAD_GRAD_POSITIONS)) if needs_grad[1] else chunk
    block_buffer = torch.empty(block, vocabulary, dtype=head.dtype, device=hidden.device)
    chunk_buffer = torch.empty(chunk, vocabulary, dtype=torch.float32, device=hidden.device)
    for first in range(0, count, block):
        last = min(first + block, count)
        for start in range(first, last, chunk):
            end = min(start + chunk, last)
            logits, grad_logits = block_buffer[start - first : end - first], chunk_buffer[: end - start]
            torch.mm(narrow_hidden[start:end], narrow_weight.t(), out=logits)
            losses[start:end] = _cross_entropy(logits, grad_logits, head, targets[start:end, None])
            if scales is not None:
                grad_logits *= scales[start:end, None]
            logits.copy_(grad_logits)
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
        block_grad = block_buffer[: last - first]
        if grad_row_values is not None:
            grad_row_values += block_grad[:, head.rows].t() @ narrow_hidden[first:last]
        torch.mm(block_grad, narrow_weight, out=grad_hidden[first:last])
        if needs_grad[1]:
            product = block_grad.t() @ narrow_hidden[first:last]
            if block >= count:
                grad_weight = product
            elif grad_weight is None:
                grad_weight = product.float()
            else:
                grad_weight.add_(product)
    return losses, (grad_hidden, grad_weight if needs_grad[1] else None, grad_bias, grad_row_values)


def head_losses(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, correct: list[torch.Tensor] | None = None
) -> torch.Tensor:
    """-log p(target) of every position, [n] in float32, without gradients; `correct` as in `loss`."""
    narrow_hidden, narrow_weight = hidden.to(head.dtype), head.narrow_weight()
    losses = hidden.new_zeros(len(hidden), dtype=torch.float32)
    chunk = head.chunk_size(len(hidden))
    for start in range(0, len(hidden), chunk):
        logits = narrow_hidden[start : start + chunk] @ narrow_weight.t()
        if correct is not None:
            scores = logits if head.bias is None else logits + head.bias
            correct.append((scores.argmax(-1) == targets[start : start + chunk]).sum())
        buffer = torch.empty_like(logits, dtype=torch.float32)
        chunk_targets = targets[start : start + chunk, None]
        losses[start : start + chunk] = _cross_entropy(logits, buffer, head, chunk_targets)
    return losses


def _scale_and_cast(grad: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """grad · scale in dtype, multiplied in the wider of both types and with one copy."""
    if dtype.itemsize > grad.dtype.itemsize:
        return grad.to(dtype).mul_(scale)
    return (grad * scale).to(dtype)


def _cross_entropy(logits: torch.Tensor, grad_logits: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    """The losses [n] of a chunk; fills `grad_logits`, float32 [n, vocabulary], with their gradient. targets: [n, 1]."""
    bias, transform = head.bias, head.transform
    is_plain = bias is None and transform == LogitTransform()
    values = logits
    if not is_plain:
        values = grad_logits.copy_(logits)
        if bias is not None:
            values += bias
        values *= transform.scale
        if transform.cap:
            values = torch.tanh_(values.div_(transform.cap)).mul_(transform.cap)
    capped = values.clone() if transform.cap else None
    if transform.temperature != 1.0:
        values /= transform.temperature
    target_logits = values.gather(-1, targets).float()
    max_logits = values.amax(-1, keepdim=True).float()
    if is_plain:
        torch.softmax(values, -1, dtype=torch.float32, out=grad_logits)
    else:
        grad_logits.copy_(values.softmax(-1))
    log_sum_exp = max_logits - grad_logits.amax(-1, keepdim=True).log()  # the largest probability is exp(max) / Σ exp
    grad_logits.scatter_add_(-1, targets, -torch.ones_like(target_logits))
    if transform.temperature != 1.0:
        grad_logits /= transform.temperature
    if capped is not None:
        grad_logits *= 1 - (capped / transform.cap).square_()
    if transform.scale != 1.0:
        grad_logits *= transform.scale
    return (log_sum_exp - target_logits).flatten()
