"""A trial: the trainer (worker/train.py) runs an order here; its losses, first gradient and events are kept."""

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

INIT_STD = 0.02  # standard deviation that replaces zero weights, so that no gradient vanishes


@dataclass
class Trial:
    """losses: one per step. gradient: float64, flat, of all trained weights at the first step. start: those weights."""

    folder: run.Run
    losses: list[float] = field(default_factory=list)
    gradient: torch.Tensor | None = None
    start: list[torch.Tensor] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def end(self) -> dict[str, Any]:
        return latest(self.events, "end")

    def plan(self) -> dict[str, Any]:
        return latest(self.events, "plan")


class Watch(Report):
    """The run's report; it also records the first gradient, sets the start weights, and asks to stop at a step."""

    def __init__(
        self, trial: Trial, attempt: int, start: list[torch.Tensor] | None, stop_at: int | None, watched: bool
    ):
        super().__init__(trial.folder, attempt)
        self.trial = trial
        self.start = start
        self.stop_at = stop_at
        self.watched = watched

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        super().on_train_begin(args, state, control, **more)
        if self.attempt == 1 and self.watched:
            self.trial.start = _set_start(self._trained(), self.start)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0 and self.watched:
            parts = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in self._trained()]
            self.trial.gradient = torch.cat([part.detach().cpu().double().flatten() for part in parts])

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if self.stop_at is not None and state.global_step == self.stop_at:
            self.run.request_stop()
        return super().on_step_end(args, state, control, **more)

    def _trained(self) -> list[torch.Tensor]:
        return [weight for weight in self.trainer.model.parameters() if weight.requires_grad]


@torch.no_grad()
def _set_start(trained: list[torch.Tensor], start: list[torch.Tensor] | None) -> list[torch.Tensor]:
    """Copy in the start weights, or replace zero weights by random ones, and return the weights.

    A reference's weights are passed on because devices draw different random numbers.
    """
    generator = torch.Generator().manual_seed(0)
    for index, weight in enumerate(trained):
        if start is not None:
            weight.copy_(start[index])
        elif not weight.any():
            weight.copy_(INIT_STD * torch.randn(weight.shape, generator=generator))
    return [weight.detach().float().cpu().clone() for weight in trained]


def run_trial(
    order: dict[str, Any],
    start: list[torch.Tensor] | None = None,
    stop_at: int | None = None,
    again: Trial | None = None,
    watched: bool = True,
) -> Trial:
    """Run an order. again: a stopped trial to resume. watched: keep start weights and gradient, which takes memory."""
    started = time.monotonic()
    trial = again or Trial(run.create(config.build(order)))
    trial.folder.stop_file.unlink(missing_ok=True)
    train.train(trial.folder, Watch(trial, 2 if again else 1, start, stop_at, watched))
    trial.events, trial.seconds = trial.folder.events(), time.monotonic() - started
    trial.losses = [event["loss"] for event in trial.events if event["kind"] == "step"]
    return trial


@contextmanager
def on_cpu() -> Iterator[None]:
    """Run the trials inside on the CPU, whatever devices there are."""
    before = os.environ.get(DEVICE_VARIABLE)
    os.environ[DEVICE_VARIABLE] = "cpu"
    try:
        yield
    finally:
        os.environ.pop(DEVICE_VARIABLE)
        if before is not None:
            os.environ[DEVICE_VARIABLE] = before


def order(
    model: Path, data: Path, method: dict[str, Any], steps: int, stage: dict[str, Any] | None = None, **training: Any
) -> dict[str, Any]:
    """A short order without evaluation and memory probe, with the same rows in the same order every time."""
    usual = {
        "max_steps": steps,
        "batch_size": 2,
        "accumulation": 2,
        "warmup": 0.0,
        "schedule": "constant",
        "save_every": 1000,
        "probe": False,
        "threads": 1,
    }
    return {
        "model": str(model),
        "data": {"train": str(data), "eval": 0, "max_length": 512},
        "method": method,
        "stage": stage or {"name": "sft"},
        "training": {**usual, **training},
    }


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """The cosine similarity of two flat gradients."""
    return float(first @ second / (first.norm() * second.norm()).clamp_min(1e-300))
