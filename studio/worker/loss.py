"""Cross entropy where a label is, the head applied only there, some positions at a time: logits are never kept.

Same number as the plain loss; time and memory of masked positions are not spent. The gradient is formed during the forward
pass, so that no second pass over the vocabulary is needed (the idea of Liger's fused linear cross entropy, arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 256  # positions whose logits exist at once: 256 × vocabulary × 4 bytes


class HeadLoss(torch.autograd.Function):
    """Sum over positions of -log p(target), from hidden states and the head's weight.

    hidden: [n, width]; weight: [vocabulary, width]; bias: [vocabulary] or None; targets: [n] of int64.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        for start in range(0, len(hidden), CHUNK):
            part, wanted = hidden[start:start + CHUNK], targets[start:start + CHUNK, None]
            logits = torch.nn.functional.linear(part, weight, bias).float()
            log_sum = logits.logsumexp(-1, keepdim=True)
            total += (log_sum - logits.gather(-1, wanted)).sum()
            slope = logits.sub_(log_sum).exp_()  # softmax, in place
            slope.scatter_add_(-1, wanted, -torch.ones_like(log_sum))
            if d_bias is not None:
                d_bias += slope.sum(0)
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=d_hidden[start:start + CHUNK])
            if d_weight is not None:
                d_weight += slope.t() @ part
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        return (d_hidden * slope.to(d_hidden.dtype),
                (d_weight * slope).to(ctx.weight_dtype) if d_weight is not None else None,
                (d_bias * slope).to(ctx.weight_dtype) if d_bias is not None else None, None)


def chunked(model: Any, inputs: dict[str, torch.Tensor], items: torch.Tensor | int | None = None) -> torch.Tensor:
    """Mean loss over the labels of a batch (or sum / items), through a pre-hook on the head that takes its input.

    Works for any decoder whose logits are head(hidden), under any peft method: virtual tokens stand before the row's own
    positions, which are the last ones. inputs: input_ids [b, s], labels [b, s] with -100 where nothing is trained, and what
    else the model takes.
    """
    labels = inputs["labels"]
    rest = {key: value for key, value in inputs.items() if key != "labels"}
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    caught: list[torch.Tensor] = []

    def catch(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        caught.append(given[0])
        return (given[0][:, -1:].detach(),)

    hook = head.register_forward_pre_hook(catch)
    try:
        model(**rest)
    finally:
        hook.remove()
    hidden = caught[0][:, -labels.shape[1]:][:, :-1]
    wanted = labels[:, 1:]
    chosen = wanted != -100
    targets = wanted[chosen]
    with torch.autocast(hidden.device.type, enabled=False):
        total = HeadLoss.apply(hidden[chosen].to(head.weight.dtype), head.weight, getattr(head, "bias", None), targets)
    return total / (items if items is not None else max(len(targets), 1))
