"""AdamW for weights that are kept in bf16 alone: each step is computed in float32 and rounded stochastically.

bf16 has 8 bits of mantissa: rounded to the nearest, an update smaller than a 256th of the weight would be lost. Rounded
up or down with a probability that grows with nearness, the mean of many updates is right (Gupta et al. 2015, arXiv
1502.02551; for training in bf16 alone Zamirai et al. 2020, arXiv 2010.06192). The second moment, which moves by a
thousandth a step, is rounded the same way. 8 bytes a weight in all (weight, gradient, two moments); float32 takes 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from studio.kernels import ADAMW_CHUNK_SIZE
from studio.worker.distributed import to_local
from studio.worker.random_bits import random_int16

LOW_BITS = 0xFFFF  # the bits of a float32 that bf16 has not


class RoundedAdamW(torch.optim.Optimizer):
    """Loshchilov and Hutter 2019, arXiv 1711.05101. The rounding depends on seed, step and index of the weight only."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        index = 0
        for group in self.param_groups:
            for weight in group["params"]:
                index += 1
                if weight.grad is not None:
                    self._update(weight, group, index)
        return loss

    def _update(self, weight: torch.Tensor, group: dict[str, Any], index: int) -> None:
        state = self.state[weight]
        if not state:
            state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
        step = int(state["step"])
        tensors = [
            to_local(weight).view(-1),
            to_local(weight.grad).reshape(-1),
            to_local(state["exp_avg"]).view(-1),
            to_local(state["exp_avg_sq"]).view(-1),
        ]
        device = tensors[0].device
        if device not in self.generators:
            self.generators[device] = torch.Generator(device)
        seed = (self.seed * 1_000_003 + step) * 1_000_003 + index & (1 << 62) - 1
        generator = self.generators[device].manual_seed(seed)
        for start in range(0, len(tensors[0]), ADAMW_CHUNK_SIZE):
            _adamw([tensor[start : start + ADAMW_CHUNK_SIZE] for tensor in tensors], group, step, generator)


def _adamw(tensors: list[torch.Tensor], group: dict[str, Any], step: int, generator: torch.Generator) -> None:
    """One step in place. tensors: weight, grad, exp_avg, exp_avg_sq, [n] of bf16.

    exp_avg moves by a tenth a step: rounding it to nearest loses nothing.
    """
    weight, grad, exp_avg, exp_avg_sq = tensors
    beta1, beta2 = group["betas"]
    wide_grad = grad.float()
    wide_exp_avg = exp_avg.float().lerp_(wide_grad, 1 - beta1)
    exp_avg.copy_(wide_exp_avg)
    denominator = exp_avg_sq.float().mul_(beta2).addcmul_(wide_grad, wide_grad, value=1 - beta2)
    noise = random_int16(2 * len(weight), weight.device, generator).view(2, -1)
    exp_avg_sq.copy_(round_stochastically(denominator.clone(), noise[0]))
    denominator.div_(1 - beta2**step).sqrt_().add_(group["eps"])
    wide_weight = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
    wide_weight.addcdiv_(wide_exp_avg, denominator, value=-group["lr"] / (1 - beta1**step))
    weight.copy_(round_stochastically(wide_weight, noise[1]))


def round_stochastically(wide: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """float32 [n] to bf16, up or down with odds by nearness. Overwrites `wide`; noise: int16 [n], uniform."""
    bits = wide.view(torch.int32)
    bits += noise.to(torch.int32) & LOW_BITS
    bits &= ~LOW_BITS
    return wide.to(torch.bfloat16)


def cast_trained_to_bf16(model: Any) -> Any:
    """The model with its trained parameters in bf16: undoes method.in_float32."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    return model
