"""transformers' learning rate schedules, with a warm-up that begins above zero and the right rate after a resume."""

from __future__ import annotations

from typing import Any

import torch
from transformers import get_scheduler

MIN_LR_RATIO = 0.1  # of the rate, at which cosine_with_min_lr ends
SCHEDULER_KWARGS: dict[str, dict[str, Any]] = {"cosine_with_min_lr": {"min_lr_rate": MIN_LR_RATIO}}
WITH_WARMUP = {"constant": "constant_with_warmup"}  # the schedule to take where a warm-up is ordered


def create_scheduler(
    name: str, optimizer: torch.optim.Optimizer, warmup: int, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule over `steps` optimizer steps, of which the first `warmup` rise from rate/warmup to the whole rate.

    transformers' warm-up begins with a step at rate 0, which learns nothing. Here step k of the warm-up has the rate
    that transformers gives to step k + 1, and at least one step is left for the rest.
    """
    warmup = min(warmup, steps - 1)
    name_with_warmup = WITH_WARMUP.get(name, name) if warmup else name
    kwargs = SCHEDULER_KWARGS.get(name)
    if name == "polynomial":  # transformers' end, 1e-7, must be below the rate
        kwargs = {"lr_end": min(1e-7, 0.1 * optimizer.defaults["lr"])}
    scheduler = get_scheduler(name_with_warmup, optimizer, warmup, steps, scheduler_specific_kwargs=kwargs)
    scheduler.lr_lambdas = [_warm_up_above_zero(factor, warmup) for factor in scheduler.lr_lambdas]
    sync_learning_rates(scheduler)
    return scheduler


def _warm_up_above_zero(factor: Any, warmup: int) -> Any:
    return lambda step: (step + 1) / warmup if step < warmup else factor(step)


def ordered_groups(scheduler: torch.optim.lr_scheduler.LambdaLR) -> list[dict[str, Any]]:
    """What the order says of each of the optimizer's groups: its full rate, and its weight decay."""
    names = ("initial_lr", "weight_decay")
    return [{name: group[name] for name in names if name in group} for group in scheduler.optimizer.param_groups]


def restore_groups(scheduler: torch.optim.lr_scheduler.LambdaLR, ordered: list[dict[str, Any]]) -> None:
    """Put back what `ordered_groups` returned: a resume has loaded the values of the order at the checkpoint."""
    for group, values in zip(scheduler.optimizer.param_groups, ordered, strict=True):
        group.update(values)
    scheduler.base_lrs = [values["initial_lr"] for values in ordered]


def sync_learning_rates(scheduler: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Set the optimizer's rates to those of the coming step; a resume has loaded the last ones of its old schedule."""
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    rates = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = rates
