"""The learning rate over a run: transformers' schedules, with a warm-up that begins above zero and a rate that fits its step after a resume."""

from __future__ import annotations

from typing import Any

import torch
from transformers import get_scheduler

MIN_LR_RATIO = 0.1  # of the rate, at which cosine_with_min_lr ends
OWN: dict[str, dict[str, Any]] = {"cosine_with_min_lr": {"min_lr_rate": MIN_LR_RATIO}}
CONSTANT = {"constant": "constant_with_warmup"}  # where a warm-up is asked for


def create_scheduler(
    name: str, optimizer: torch.optim.Optimizer, warmup: int, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule over `steps` optimizer steps, of which the first `warmup` rise from rate/warmup to the whole rate.

    transformers' own begins with a step at rate 0, which learns nothing: of a run of one step, all of it. Here step k of the
    warm-up has the rate that transformers gives to step k + 1, and one step at least is left for the rest.
    """
    warmup = min(warmup, steps - 1)
    named = CONSTANT.get(name, name) if warmup else name
    made = get_scheduler(named, optimizer, warmup, steps, scheduler_specific_kwargs=OWN.get(name))
    made.lr_lambdas = [_shifted(factor, warmup) for factor in made.lr_lambdas]
    sync_learning_rates(made)
    return made


def _shifted(factor: Any, warmup: int) -> Any:
    return lambda step: (step + 1) / warmup if step < warmup else factor(step)


def sync_learning_rates(made: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Set the optimizer's rates to those of the step that comes next. After a resume it holds those of the step before, as its old schedule had it."""
    rates = [base * factor(made.last_epoch) for base, factor in zip(made.base_lrs, made.lr_lambdas, strict=True)]
    for group, rate in zip(made.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    made._last_lr = rates
