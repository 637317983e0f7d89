"""LoRA layers made quick on instances that peft built: the same mathematics, fewer passes over memory. No class is patched."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn.functional import dropout, linear

BITS = 65536  # a drop rate is rounded to 1/65536


def dropout_mask(x: torch.Tensor, rate: float) -> tuple[torch.Tensor, float]:
    """(int8 of x's shape: 1 kept, 0 dropped; what the kept ones are multiplied with).

    torch draws each element's fate one by one on a CPU; these are four 16-bit fates from each 64-bit draw of the same generator.
    int8, not bool: with it products and comparisons run many numbers at a time.
    """
    dropped = round(rate * BITS)
    draws = (
        torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        .random_(-(2**63), None)
        .view(torch.int16)[: x.numel()]
        .view(x.shape)
    )
    return torch.ge(draws, dropped - BITS // 2, out=torch.empty(x.shape, dtype=torch.int8, device=x.device)), BITS / (
        BITS - dropped
    )


class DropoutLinear(torch.autograd.Function):
    """dropout(x) · weightᵀ on a CPU. x: [..., inputs]; weight: [rank, inputs]; dtype: that of the product.

    Of what is dropped only x itself is kept for backward, which the layers beside keep as well, and a byte an element: not a copy of x
    a layer with holes in it.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, rate: float, dtype: torch.dtype) -> torch.Tensor:
        kept, ctx.gain = dropout_mask(x, rate)
        ctx.save_for_backward(x, weight, kept)
        ctx.dtype = dtype
        return linear((x * kept).to(dtype), weight.to(dtype)).mul_(ctx.gain)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, kept = ctx.saved_tensors
        grad_output = grad_output * ctx.gain
        d_x = (grad_output @ weight.to(ctx.dtype)).mul_(kept).to(x.dtype) if ctx.needs_input_grad[0] else None
        d_weight = (grad_output.flatten(0, -2).t() @ (x * kept).to(ctx.dtype).flatten(0, -2)).to(weight.dtype)
        return d_x, d_weight, None, None


def dropout_linear(down: torch.nn.Linear, rate: float, x: torch.Tensor) -> torch.Tensor:
    """What `down` (peft's lora_A) gives for a dropped-out x while it trains, and for x as it is otherwise.

    Decided by where x is: the quick draws are a CPU's; every other device draws quickly by itself.
    """
    if not down.training or not rate:
        return linear(x, down.weight)
    if x.device.type != "cpu":
        return linear(dropout(x, rate), down.weight)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else down.weight.dtype
    return DropoutLinear.apply(x, down.weight, rate, dtype)


def speed_up_lora(model: Any, autocast: bool) -> None:
    """Give plain LoRA layers the dropout that is quick on a CPU and, under autocast, let their inputs stay in 16 bits.

    Autocast computes the small products in 16 bits either way; peft would first widen the input to float32 and keep that copy.
    """
    from peft.tuners.lora.layer import LoraLayer

    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            continue
        if autocast:
            layer.cast_input_dtype_enabled = False
        for name, dropping in layer.lora_dropout.items():
            down = layer.lora_A[name]
            if type(dropping) is torch.nn.Dropout and type(down) is torch.nn.Linear:
                layer.lora_dropout[name] = torch.nn.Identity()
                down.forward = functools.partial(dropout_linear, down, dropping.p)
