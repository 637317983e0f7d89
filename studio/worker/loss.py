"""Cross entropy where a label is, the head applied only there, some positions at a time: logits are never kept.

Same number as the plain loss; time and memory of masked positions are not spent. The gradient is formed during the forward
pass, so that no second pass over the vocabulary is needed (the idea of Liger's fused linear cross entropy, arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional

from studio.kernels import HEAD_GRAD_POSITIONS, IGNORE_INDEX, LOGIT_CHUNK_BYTES


class LogitTransform(NamedTuple):
    """What a model does to head(hidden) before the softmax: scale, then a soft cap (Gemma 2: cap · tanh(x / cap))."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitTransform:
        """From a model's config: Granite divides by logits_scaling, Cohere multiplies by logit_scale, Falcon-H1 by lm_head_multiplier."""
        text = config.get_text_config()
        scale = getattr(text, "logit_scale", None) or getattr(text, "lm_head_multiplier", None) or 1.0
        return cls(
            scale / (getattr(text, "logits_scaling", None) or 1.0), getattr(text, "final_logit_softcapping", None)
        )


class HeadLoss(torch.autograd.Function):
    """Sum over positions of -log p(target), from hidden states and the head's weight.

    hidden: [n, width]; weight: [vocabulary, width]; bias: [vocabulary] or None; targets: [n] of int64; dtype: that of the products.
    rows: [k] of int64, rows of the weight in whose place `values` [k, width] stand, which get a gradient of their own.
    """

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
        values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        narrow, cast = (
            hidden.to(dtype),
            weight.to(dtype) if rows is None else weight.to(dtype).index_copy(0, rows, values.to(dtype)),
        )
        d_values = None if values is None else torch.zeros_like(values, dtype=torch.float32)
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden, d_weight = torch.empty_like(narrow), None if len(hidden) else torch.zeros_like(cast)
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        chunk = max(1, min(len(hidden), LOGIT_CHUNK_BYTES.get(hidden.device.type, 2**27) // (4 * len(weight))))
        block = max(chunk, min(len(hidden), HEAD_GRAD_POSITIONS)) if ctx.needs_input_grad[1] else chunk
        raw = torch.empty(block, len(weight), dtype=dtype, device=hidden.device)
        wide = torch.empty(chunk, len(weight), dtype=torch.float32, device=hidden.device)
        for first in range(0, len(hidden), block):
            past = min(first + block, len(hidden))
            for start in range(first, past, chunk):
                end = min(start + chunk, past)
                logits, grad_logits = raw[start - first : end - first], wide[: end - start]
                torch.mm(narrow[start:end], cast.t(), out=logits)
                total += _forward_chunk(logits, grad_logits, bias, targets[start:end, None], transform)
                logits.copy_(grad_logits)
                if d_bias is not None:
                    d_bias += grad_logits.sum(0)
            d_logits = raw[: past - first]
            if d_values is not None:
                d_values += d_logits[:, rows].t() @ narrow[first:past]
            torch.mm(d_logits, cast, out=d_hidden[first:past])
            if ctx.needs_input_grad[1]:
                part = d_logits.t() @ narrow[first:past]
                d_weight = part if block >= len(hidden) else part.float() if d_weight is None else d_weight.add_(part)
        ctx.save_for_backward(d_hidden, d_weight if ctx.needs_input_grad[1] else None, d_bias, d_values)
        ctx.types = (
            hidden.dtype,
            weight.dtype,
            bias.dtype if bias is not None else None,
            values.dtype if values is not None else None,
        )
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, values = (
            None if grad is None else _scaled(grad, grad_output, kind)
            for grad, kind in zip(ctx.saved_tensors, ctx.types)
        )
        return hidden, weight, bias, None, None, None, None, values


def _value(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    transform: LogitTransform,
    dtype: torch.dtype,
    rows: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
) -> torch.Tensor:
    """HeadLoss's value alone, some positions at a time."""
    narrow, turned = (
        hidden.to(dtype),
        (weight.to(dtype) if rows is None else weight.to(dtype).index_copy(0, rows, values.to(dtype))).t(),
    )
    total = hidden.new_zeros((), dtype=torch.float32)
    chunk = max(1, min(len(hidden), LOGIT_CHUNK_BYTES.get(hidden.device.type, 2**27) // (4 * len(weight))))
    for start in range(0, len(hidden), chunk):
        logits = narrow[start : start + chunk] @ turned
        total += _forward_chunk(
            logits, torch.empty_like(logits, dtype=torch.float32), bias, targets[start : start + chunk, None], transform
        )
    return total


def _scaled(grad: torch.Tensor, grad_output: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """grad * grad_output in another type, computed in the wider of both and with one copy."""
    return grad.to(kind).mul_(grad_output) if kind.itemsize > grad.dtype.itemsize else (grad * grad_output).to(kind)


def _forward_chunk(
    logits: torch.Tensor,
    grad_logits: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    transform: LogitTransform,
) -> torch.Tensor:
    """The loss of a chunk, summed; `grad_logits` [n, vocabulary] is filled with its derivative by head(hidden)."""
    plain = bias is None and transform == LogitTransform()
    values = logits
    if not plain:
        values = grad_logits.copy_(logits)
        if bias is not None:
            values += bias
        values *= transform.scale
        if transform.cap:
            values = torch.tanh_(values.div_(transform.cap)).mul_(transform.cap)
    capped = values.clone() if transform.cap else None
    right, most = values.gather(-1, targets).float(), values.amax(-1, keepdim=True).float()
    if plain:
        torch.softmax(values, -1, dtype=torch.float32, out=grad_logits)
    else:
        grad_logits.copy_(values.softmax(-1))
    log_sum = most - grad_logits.amax(-1, keepdim=True).log()  # log Σ exp, from the largest logit and its probability
    grad_logits.scatter_add_(-1, targets, -torch.ones_like(right))
    if capped is not None:
        grad_logits *= 1 - (capped / transform.cap).square_()
    if transform.scale != 1.0:
        grad_logits *= transform.scale
    return (log_sum - right).sum()


def loss(
    model: Any,
    inputs: dict[str, Any],
    kind: str,
    dtype: torch.dtype,
    smoothing: float = 0.0,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of the loss over the labels of a batch (-100: none). kind: "chunked", or "full" as the model itself would; inputs: with labels.

    smoothing (full only): the share of certainty taken off the right token, as torch's cross_entropy has it. places (chunked only): where
    labels[:, 1:].flatten() holds a label, so that a GPU need not be asked, and waited for.
    """
    rest = {key: value for key, value in inputs.items() if key != "labels"}
    if kind == "chunked":
        return _chunked(model, rest, inputs["labels"], dtype, places)
    logits = model(**rest).logits[:, -inputs["labels"].shape[1] :]  # virtual tokens stand before the row's own
    with torch.autocast(logits.device.type, enabled=False):
        return functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1),
            inputs["labels"][:, 1:].flatten(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=smoothing,
        )


def _chunked(
    model: Any, rest: dict[str, Any], labels: torch.Tensor, dtype: torch.dtype, places: torch.Tensor | None
) -> torch.Tensor:
    """Through a pre-hook on the head, which takes the head's input, forms the loss there, and lets the head have one position only.

    Works for any decoder whose logits are head(hidden), under any peft method, and where the head's weight is whole only while the
    model runs (FSDP).
    """
    base = plain(model)
    head, transform = base.get_output_embeddings(), LogitTransform.of(base.config)
    found: list[torch.Tensor] = []
    following = labels[:, 1:].flatten()
    chosen = (following != IGNORE_INDEX).nonzero().flatten() if places is None else places

    def take(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = given[0][:, -labels.shape[1] :][:, :-1].flatten(0, 1)
        with torch.autocast(hidden.device.type, enabled=False):
            form = (
                HeadLoss.apply if torch.is_grad_enabled() else _value
            )  # an evaluation needs no product with the weight a second time
            weight, rows, values = _of_head(module)
            found.append(
                form(
                    hidden[chosen],
                    weight,
                    getattr(module, "bias", None),
                    following[chosen],
                    transform,
                    dtype,
                    rows,
                    values,
                )
            )
        return (given[0][:, -1:].detach(),)

    hook = head.register_forward_pre_hook(take)
    try:
        model(**rest)
    finally:
        hook.remove()
    return found[0]


def _of_head(head: Any) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """(weight, rows of it that are trained alone, their values); None and None where it is trained whole or not at all."""
    adapter = getattr(head, "token_adapter", None)
    if adapter is None or not adapter.active_adapters or adapter.disable_adapters:
        return head.weight, None, None
    (name,) = adapter.active_adapters
    weight = adapter.get_base_layer().weight
    return weight, torch.tensor(adapter.token_indices[name], device=weight.device), adapter.trainable_tokens_delta[name]


def plain(model: Any) -> Any:
    """The base model inside DDP and peft."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_plain_linear_head(model: Any) -> bool:
    """Whether the head is a plain linear, so that its weight is all there is to it, rows for new tokens among it; no adapter, not quantized."""
    head = plain(model).get_output_embeddings()
    return type(getattr(head, "token_adapter", None) and head.token_adapter.get_base_layer() or head) is torch.nn.Linear
