"""AdamW for weights that are kept in bf16 alone: each step is computed in float32 and rounded at random.

bf16 has 8 bits of mantissa: rounded to the nearest, a step smaller than a 256th of the weight would leave it as it was. Rounded up or
down with the odds of how near each lies, the mean of many steps is right (Gupta et al. 2015, arXiv 1502.02551; for training in bf16
alone Zamirai et al. 2020, arXiv 2010.06192). So is the second moment, which moves by a thousandth a step. 8 bytes a weight in all:
weight, gradient and two moments, where float32 takes 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from studio.kernels import ADAMW_CHUNK_SIZE

LOW = 0xFFFF  # the bits of a float32 that bf16 has not


class RoundedAdamW(torch.optim.Optimizer):
    """Loshchilov and Hutter 2019, arXiv 1711.05101, on bf16 weights. seed: of the rounding alone.

    What is drawn depends on seed, step and place of the weight only: a resume draws the same, and so do copies on several devices.
    """

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
        self.seed, self.draws = seed, {}

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            for weight in group["params"]:
                place += 1
                if weight.grad is not None:
                    self._move(weight, group, place)
        return loss

    def _move(self, weight: torch.Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[weight]
        if not state:
            state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
        count = int(state["step"])
        flat = [
            _local(weight).view(-1),
            _local(weight.grad).reshape(-1),
            _local(state["exp_avg"]).view(-1),
            _local(state["exp_avg_sq"]).view(-1),
        ]
        draw = self._draw(flat[0].device, count, place)
        for start in range(0, len(flat[0]), ADAMW_CHUNK_SIZE):
            _adamw([one[start : start + ADAMW_CHUNK_SIZE] for one in flat], group, count, draw)

    def _draw(self, device: torch.device, step: int, place: int) -> torch.Generator:
        if device not in self.draws:
            self.draws[device] = torch.Generator(device)
        return self.draws[device].manual_seed((self.seed * 1_000_003 + step) * 1_000_003 + place & (1 << 62) - 1)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP has split, else the tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _adamw(numbers: list[torch.Tensor], group: dict[str, Any], step: int, draw: torch.Generator) -> None:
    """One step on some numbers: weight, gradient, first and second moment, each [n] of bf16, in place.

    The first moment moves by a tenth a step: rounded to the nearest it loses nothing.
    """
    weight, grad, exp_avg, exp_avg_sq = numbers
    first, second = group["betas"]
    wide = grad.float()
    moment = exp_avg.float().lerp_(wide, 1 - first)
    exp_avg.copy_(moment)
    denominator = exp_avg_sq.float().mul_(second).addcmul_(wide, wide, value=1 - second)
    noise = random_bits(2 * len(weight), draw).view(2, -1)
    exp_avg_sq.copy_(rounded(denominator.clone(), noise[0]))
    denominator.div_(1 - second**step).sqrt_().add_(group["eps"])
    wide = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
    wide.addcdiv_(moment, denominator, value=-group["lr"] / (1 - first**step))
    weight.copy_(rounded(wide, noise[1]))


def random_bits(count: int, draw: torch.Generator) -> torch.Tensor:
    """int16 [count], uniform over all its values: four from each 64-bit draw."""
    raw = torch.empty(-(-count // 4), dtype=torch.int64, device=draw.device)
    return raw.random_(-(2**63), None, generator=draw).view(torch.int16)[:count]


def rounded(wide: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """float32 [n] to bf16, up or down with the odds of how near each lies. Writes over `wide`; noise: int16 [n], uniform."""
    bits = wide.view(torch.int32)
    bits += noise.to(torch.int32) & LOW
    bits &= ~LOW
    return wide.to(torch.bfloat16)


def narrow(model: Any) -> Any:
    """What is trained, set to bf16: the undo of method.in_float32."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    return model
