"""LoRA layers that peft built, in fewer passes over memory: the same mathematics, and one rounding instead of three.

The low-rank product is added to the base's inside the matrix product (`addmm`), its input is kept as it is beside a
dropout mask of a byte an element, and A and B are cast to the computing format once a step. Instances are changed, no
class is patched; what is not plain LoRA on a linear goes through peft's own forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from studio.worker.distributed import to_local
from studio.worker.random_bits import random_int16

LEVELS = 2**16  # on a CPU a dropout rate is rounded to a multiple of 1 / LEVELS


def dropout_mask(x: torch.Tensor, rate: float) -> tuple[torch.Tensor, float]:
    """(mask: int8 of x's shape, 1 kept and 0 dropped; scale of the kept elements). int8 multiplies faster than bool."""
    dropped = round(rate * LEVELS)
    draws = random_int16(x.numel(), x.device).view(x.shape)
    mask = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    torch.ge(draws, dropped - LEVELS // 2, out=mask)
    return mask, LEVELS / (LEVELS - dropped)


def drop(x: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """(x with dropped elements 0, mask, scale of the kept elements, the part of it that is still to be applied)."""
    if x.device.type == "cpu":
        mask, scale = dropout_mask(x, rate)
        return x * mask, mask, scale, scale
    dropped, mask = torch.native_dropout(x, rate, True)  # one kernel, which scales
    return dropped, mask, 1 / (1 - rate), 1.0


def scaled_mm(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """left · right · scale in one product. left: [n, k]; right: [k, m], whose first row only gives the shape."""
    return torch.addmm(right[0], left, right, beta=0, alpha=scale)


class Frozen(NamedTuple):
    """What LowRankLinear computes with and has no gradient for.

    narrow_A, narrow_B: A and B in the format of the products; scaling: of their product; rate: of dropout; weight,
    bias: of the base, in that format too, None where its result is given.
    """

    narrow_A: torch.Tensor
    narrow_B: torch.Tensor
    scaling: float
    rate: float
    weight: torch.Tensor | None
    bias: torch.Tensor | None


class LowRankLinear(torch.autograd.Function):
    """x · weightᵀ + bias + scaling · dropout(x) · Aᵀ · Bᵀ; `result` stands for the first two where it is given.

    x: [..., inputs]; lora_A: [rank, inputs]; lora_B: [outputs, rank]. Their gradients come in their own type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        lora_A: torch.Tensor,
        lora_B: torch.Tensor,
        result: torch.Tensor | None,
        frozen: Frozen,
    ) -> torch.Tensor:
        narrow_A, narrow_B, scaling, rate, weight, bias = frozen
        narrow_x = x.to(narrow_A.dtype)
        dropped, mask, scale, rest = drop(narrow_x, rate) if rate else (narrow_x, None, 1.0, 1.0)
        inner = linear(dropped, narrow_A).flatten(0, -2)
        del dropped
        if result is None:
            output = linear(narrow_x.flatten(0, -2), weight, bias).addmm_(inner, narrow_B.t(), alpha=scaling * rest)
        else:
            dtype = result.dtype
            flat = result.reshape(-1, result.shape[-1])
            output = torch.addmm(flat, inner.to(dtype), narrow_B.t().to(dtype), alpha=scaling * rest)
        ctx.save_for_backward(x, mask, inner, narrow_A, narrow_B, weight)
        ctx.scalings, ctx.dtypes = (scaling * rest, scaling * scale), (lora_A.dtype, lora_B.dtype)
        # autograd refuses that a model (Falcon) adds to a view in place, and takes this for none
        return torch.ops.aten._unsafe_view(output, (*x.shape[:-1], output.shape[-1]))

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mask, inner, narrow_A, narrow_B, weight = ctx.saved_tensors
        scaling, scaling_of_mask = ctx.scalings
        dtype_A, dtype_B = ctx.dtypes
        grad = grad_output.reshape(-1, grad_output.shape[-1]).to(narrow_A.dtype)
        grad_B = scaled_mm(grad.t(), inner, scaling).to(dtype_B)
        grad_inner = scaled_mm(grad, narrow_B, scaling_of_mask)
        dropped = x.to(narrow_A.dtype).flatten(0, -2)
        if mask is not None:
            mask = mask.flatten(0, -2)
            dropped = dropped * mask
        grad_A = (grad_inner.t() @ dropped).to(dtype_A)
        del dropped
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad, grad_inner, narrow_A, weight, mask).view(x.shape).to(x.dtype)
        grad_result = grad_output if ctx.needs_input_grad[3] else None
        return grad_x, grad_A, grad_B, grad_result, None


def _grad_input(
    grad: torch.Tensor,
    grad_inner: torch.Tensor,
    narrow_A: torch.Tensor,
    weight: torch.Tensor | None,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """The gradient by the input [n, inputs]: both ways through the layer, the low-rank one where weight is None."""
    if weight is not None and mask is None:
        return (grad @ weight).addmm_(grad_inner, narrow_A)
    change = grad_inner @ narrow_A
    if mask is not None and mask.dtype == torch.bool and weight is not None:
        return (grad @ weight).addcmul_(change, mask)  # a CPU would cast the mask first
    if mask is not None:
        change *= mask
    return change if weight is None else change.add_(grad @ weight)


class LoraForward:
    """The forward of one LoRA layer of peft's, set on the instance."""

    def __init__(self, layer: Any):
        self.layer = layer
        self.copies: tuple[torch.Tensor, torch.Tensor] | None = None  # of A and B, while a step lasts

    @property
    def adapter(self) -> str | None:
        """The adapter to apply, where a plain one is; else None."""
        layer = self.layer
        names = [name for name in layer.active_adapters if name in layer.lora_A]
        is_plain = len(names) == 1 and not (layer.disable_adapters or layer.merged or layer.lora_variant)
        return names[0] if is_plain else None

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B of the active adapter."""
        return self.layer.lora_A[self.adapter].weight, self.layer.lora_B[self.adapter].weight

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer, adapter, device = self.layer, self.adapter, x.device.type
        if adapter is None or args or kwargs:
            return type(layer).forward(layer, x, *args, **kwargs)
        lora_A, lora_B = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else lora_A.dtype
        narrow_A, narrow_B = self.copies or (lora_A.detach().to(dtype), lora_B.detach().to(dtype))
        dropout, base = layer.lora_dropout[adapter], layer.get_base_layer()
        rate = dropout.p if dropout.training and isinstance(dropout, torch.nn.Dropout) else 0.0
        weight, bias = _frozen_linear(base, dtype)
        frozen = Frozen(narrow_A, narrow_B, layer.scaling[adapter], rate, weight, bias)
        return LowRankLinear.apply(x, lora_A, lora_B, base(x) if weight is None else None, frozen)


def _frozen_linear(base: Any, dtype: torch.dtype) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(weight [outputs, inputs], bias) of a frozen x · Wᵀ + b of this type without hooks; else (None, None)."""
    if type(base) not in (torch.nn.Linear, Conv1D) or base._forward_hooks or base._forward_pre_hooks:
        return None, None
    tensors = [tensor for tensor in (base.weight, base.bias) if tensor is not None]
    if "forward" in vars(base) or any(tensor.requires_grad or tensor.dtype != dtype for tensor in tensors):
        return None, None
    return base.weight.t() if isinstance(base, Conv1D) else base.weight, base.bias


def speed_up_lora(model: Any, autocast: bool) -> None:
    """Set the quick forward on every layer of plain LoRA on a linear, also on one of bitsandbytes.

    Under autocast the others keep their inputs in 16 bits: autocast computes the small products so either way; peft
    would first cast the input to float32 and keep that.
    """
    from peft.tuners.lora.layer import Linear, LoraLayer

    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            continue
        if autocast:
            layer.cast_input_dtype_enabled = False
        small = [*layer.lora_A.values(), *layer.lora_B.values()]
        is_known = isinstance(layer, Linear) or type(layer).__name__ in ("Linear4bit", "Linear8bitLt")
        if is_known and all(type(module) is torch.nn.Linear and module.bias is None for module in small):
            layer.forward = LoraForward(layer)


@contextmanager
def narrow_copies(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """While the block lasts, in which no weight changes, A and B are cast once for all passes, in one kernel.

    dtype: of the products. Weights that FSDP holds are cast as they are gathered.
    """
    forwards = [module.forward for module in model.modules() if isinstance(vars(module).get("forward"), LoraForward)]
    forwards = [forward for forward in forwards if forward.adapter is not None]
    pairs = [forward.weights() for forward in forwards]
    wide = [weight.detach() for pair in pairs for weight in pair]
    if not wide or wide[0].dtype == dtype or wide[0] is not to_local(wide[0]):
        yield
        return
    narrow = [torch.empty_like(weight, dtype=dtype) for weight in wide]
    torch._foreach_copy_(narrow, wide)
    for forward, *copies in zip(forwards, narrow[::2], narrow[1::2], strict=True):
        forward.copies = tuple(copies)
    try:
        yield
    finally:
        for forward in forwards:
            forward.copies = None
