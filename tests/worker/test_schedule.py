"""Learning rate: no step at rate 0, transformers' schedule otherwise, the right rate after a resume with more steps."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from studio.training import Training
from studio.worker import schedule

NAMES = Training.model_fields["schedule"].annotation.__args__


def rates(made: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    """The rate of every step, as the optimizer has it when it makes the step."""
    found = []
    for _ in range(steps):
        found.append(made.optimizer.param_groups[0]["lr"])
        made.optimizer.step()
        made.step()
    return found


def optimizer(rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("warmup", "steps"), [(0, 20), (1, 1), (1, 20), (5, 20)])
def test_the_warm_up_ends_at_the_whole_rate_and_begins_above_zero(name: str, warmup: int, steps: int) -> None:
    found = rates(schedule.create_scheduler(name, optimizer(), warmup, steps), steps)
    assert min(found) > 0
    assert max(found) == pytest.approx(1e-3)
    assert found[:warmup] == pytest.approx([1e-3 * (n + 1) / warmup for n in range(warmup)])
    specific = {"cosine_with_min_lr": {"min_lr_rate": schedule.MIN_LR_RATIO}}.get(name)
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer(),
        min(warmup, steps - 1),
        steps,
        scheduler_specific_kwargs=specific,
    )
    assert found[warmup:] == pytest.approx(rates(theirs, steps)[warmup:])


@pytest.mark.parametrize("name", ["cosine", "linear", "cosine_with_min_lr", "constant"])
def test_more_steps_after_the_end(name: str) -> None:
    """As a run of the longer plan has it at that step: the checkpoint holds the rate with which the old plan ended."""
    first = optimizer()
    old = schedule.create_scheduler(name, first, 2, 10)
    rates(old, 10)
    again = optimizer()
    new = schedule.create_scheduler(name, again, 2, 20)
    again.load_state_dict(first.state_dict())
    new.load_state_dict(old.state_dict())
    schedule.sync_learning_rates(new)
    assert rates(new, 10) == pytest.approx(rates(schedule.create_scheduler(name, optimizer(), 2, 20), 20)[10:])


def test_a_constant_rate_rises_only_where_that_is_asked_for() -> None:
    assert Training(schedule="constant").warmup_ratio == 0
    assert Training(schedule="constant", warmup=0.1).warmup_ratio == 0.1
    assert Training().warmup_ratio == 0.03


def test_a_polynomial_schedule_takes_the_smallest_rates() -> None:
    """transformers refuses rates below its own end of 1e-7."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-8)
    schedule.create_scheduler("polynomial", optimizer, 0, 4)
    assert optimizer.param_groups[0]["lr"] == 1e-8
