"""A quicker forward for LoRA layers that peft built: the same mathematics, fewer passes over memory.

Instances are changed, no class is patched.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn.functional import dropout, linear

from studio.worker.random_bits import random_int16

LEVELS = 2**16  # a dropout rate is rounded to a multiple of 1 / LEVELS


def dropout_mask(x: torch.Tensor, rate: float) -> tuple[torch.Tensor, float]:
    """(mask: int8 of x's shape, 1 kept and 0 dropped; scale of the kept elements). int8 multiplies faster than bool."""
    dropped = round(rate * LEVELS)
    draws = random_int16(x.numel(), x.device).view(x.shape)
    mask = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    torch.ge(draws, dropped - LEVELS // 2, out=mask)
    return mask, LEVELS / (LEVELS - dropped)


class DropoutLinear(torch.autograd.Function):
    """dropout(x) · weightᵀ on a CPU. x: [..., inputs]; weight: [rank, inputs]; dtype: that of the product.

    Saves for backward x itself, which other layers save as well, and a mask of a byte an element; not a dropped-out
    copy of x for each layer.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, rate: float, dtype: torch.dtype) -> torch.Tensor:
        mask, ctx.scale = dropout_mask(x, rate)
        ctx.save_for_backward(x, weight, mask)
        ctx.dtype = dtype
        return linear((x * mask).to(dtype), weight.to(dtype)).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mask = ctx.saved_tensors
        grad_output = grad_output * ctx.scale
        grad_x = (grad_output @ weight.to(ctx.dtype)).mul_(mask).to(x.dtype) if ctx.needs_input_grad[0] else None
        grad_weight = grad_output.flatten(0, -2).t() @ (x * mask).to(ctx.dtype).flatten(0, -2)
        return grad_x, grad_weight.to(weight.dtype), None, None


def dropout_linear(lora_A: torch.nn.Linear, rate: float, x: torch.Tensor) -> torch.Tensor:
    """lora_A(dropout(x)) in training mode, else lora_A(x); torch's own dropout is quick on other devices than a CPU."""
    if not lora_A.training or not rate:
        return linear(x, lora_A.weight)
    if x.device.type != "cpu":
        return linear(dropout(x, rate), lora_A.weight)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else lora_A.weight.dtype
    return DropoutLinear.apply(x, lora_A.weight, rate, dtype)


def speed_up_lora(model: Any, autocast: bool) -> None:
    """Give plain LoRA layers the quick dropout and, under autocast, keep their inputs in 16 bits.

    Autocast computes the small products in 16 bits either way; peft would first cast the input to float32 and keep
    that.
    """
    from peft.tuners.lora.layer import LoraLayer

    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            continue
        if autocast:
            layer.cast_input_dtype_enabled = False
        for name, module in layer.lora_dropout.items():
            lora_A = layer.lora_A[name]
            if type(module) is torch.nn.Dropout and type(lora_A) is torch.nn.Linear:
                layer.lora_dropout[name] = torch.nn.Identity()
                lora_A.forward = functools.partial(dropout_linear, lora_A, module.p)
