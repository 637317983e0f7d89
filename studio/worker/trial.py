"""Trial: an order carried out by the trainer itself (worker/train.py) in this process, watched: losses, the first step's gradient, the diary."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from studio import config, run
from studio.device import DEVICE_VARIABLE
from studio.events import latest
from studio.worker import train
from studio.worker.report import Report

PUSHED = 0.02  # standard deviation of what is put in the place of zeros, so that every gradient has something to say


@dataclass
class Trial:
    """losses: of each step. gradient: [numbers] float64, of the first one, of all that is trained. start: the trained weights before it."""

    folder: run.Run
    losses: list[float] = field(default_factory=list)
    gradient: torch.Tensor | None = None
    start: list[torch.Tensor] = field(default_factory=list)
    diary: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def end(self) -> dict[str, Any]:
        return latest(self.diary, "end")

    def plan(self) -> dict[str, Any]:
        return latest(self.diary, "plan")


class Watch(Report):
    """The run's own report, which also takes the gradient down, starts from given weights, and asks to stop where it is told to."""

    def __init__(
        self, trial: Trial, attempt: int, start: list[torch.Tensor] | None, stop_at: int | None, watched: bool
    ):
        super().__init__(trial.folder, attempt)
        self.trial, self.given, self.stop_at, self.watched = trial, start, stop_at, watched

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        super().on_train_begin(args, state, control, **more)
        if self.attempt == 1 and self.watched:
            self.trial.start = _begin(self._trained(), self.given)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0 and self.watched:
            parts = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in self._trained()]
            self.trial.gradient = torch.cat([part.detach().double().cpu().flatten() for part in parts])

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if self.stop_at is not None and state.global_step == self.stop_at:
            self.run.request_stop()
        return super().on_step_end(args, state, control, **more)

    def _trained(self) -> list[torch.Tensor]:
        return [weight for weight in self.trainer.model.parameters() if weight.requires_grad]


@torch.no_grad()
def _begin(trained: list[torch.Tensor], given: list[torch.Tensor] | None) -> list[torch.Tensor]:
    """Start from the weights given, else from one's own with zeros pushed off; returns them. Devices draw unlike random numbers."""
    draws = torch.Generator().manual_seed(0)
    for place, weight in enumerate(trained):
        if given is not None:
            weight.copy_(given[place])
        elif not weight.any():
            weight.copy_(PUSHED * torch.randn(weight.shape, generator=draws))
    return [weight.detach().float().cpu().clone() for weight in trained]


def carry(
    order: dict[str, Any],
    start: list[torch.Tensor] | None = None,
    stop_at: int | None = None,
    again: Trial | None = None,
    watched: bool = True,
) -> Trial:
    """Carry out an order as a run; again: go on with a trial that was stopped; watched: keep
    the start and the gradient, which takes memory of its own. Raises what the trainer raises."""
    began = time.monotonic()
    trial = again or Trial(run.create(config.build(order)))
    trial.folder.stop_file.unlink(missing_ok=True)
    train.train(trial.folder, Watch(trial, 2 if again else 1, start, stop_at, watched))
    trial.diary, trial.seconds = trial.folder.events(), time.monotonic() - began
    trial.losses = [event["loss"] for event in trial.diary if event["kind"] == "step"]
    return trial


@contextmanager
def on_cpu() -> Iterator[None]:
    """Trials meanwhile are of the CPU, whatever cards there are."""
    before = os.environ.get(DEVICE_VARIABLE)
    os.environ[DEVICE_VARIABLE] = "cpu"
    try:
        yield
    finally:
        os.environ.pop(DEVICE_VARIABLE)
        if before is not None:
            os.environ[DEVICE_VARIABLE] = before


def order(model: Path, data: Path, method: dict[str, Any], steps: int, **training: Any) -> dict[str, Any]:
    """A short order that neither evaluates nor probes, with the same rows in the same order every time."""
    usual = {
        "max_steps": steps,
        "batch_size": 2,
        "accumulation": 2,
        "warmup": 0.0,
        "schedule": "constant",
        "save_every": 1000,
        "probe": False,
        "threads": 1,
    }  # so small a model gains nothing from more, and loses much where others compute too
    return {
        "model": str(model),
        "data": {"train": str(data), "eval": 0, "max_length": 512},
        "method": method,
        "training": {**usual, **training},
    }


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the angle between two gradients."""
    return float(one @ other / (one.norm() * other.norm()).clamp_min(1e-300))
