"""Runs carried out in this process, on the tiny model: what they wrote, and what came out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio import config, crash
from studio.run import Run, create


def rows(file: Path, count: int = 24) -> Path:
    """Alpaca rows of unlike length."""
    file.write_text(
        json.dumps(
            [
                {"instruction": f"Say the number {n}.", "input": "", "output": f"The number is {n}. " * (1 + n % 5)}
                for n in range(count)
            ]
        )
    )
    return file


def order(model: Path, data: Path, *settings: str) -> Run:
    """A run of a short order in float32, without samples; settings as --set takes them."""
    usual = (
        "training.epochs=2",
        "training.batch_size=2",
        "training.accumulation=2",
        "training.precision=fp32",
        "training.probe=false",
        "training.threads=1",
        "training.warmup=0",
        "training.learning_rate=0.01",
        "training.save_every=100",
        "training.keep_checkpoints=99",
        "training.samples=0",  # a fifth of such a run's time
        "data.eval=0.2",
    )
    plain = f"{{model: {model}, data: {{train: {data}}}}}"
    return create(config.parse(plain, [*usual, *settings]))


def carry(run: Run) -> list[dict[str, Any]]:
    """One attempt, without a supervisor; returns the diary."""
    from studio.worker import train

    train.main(run)
    return run.events()


def steps(diary: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in diary if event["kind"] == "step"]


def evals(diary: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in diary if event["kind"] == "eval"]


def result(run: Run) -> dict[str, Any]:
    name = "adapter_model.safetensors" if (run.result / "adapter_model.safetensors").exists() else "model.safetensors"
    return load_file(run.result / name)


def shorten(
    monkeypatch: pytest.MonkeyPatch, tokens: int, at_once: int = 1 << 30, where: Callable[[], bool] = lambda: True
) -> list[int]:
    """Passes without a gradient have no room for more tokens, nor for more rows than at_once; returns the refused."""
    refused: list[int] = []
    forward = torch.nn.Embedding.forward

    def look_up(self: Any, ids: torch.Tensor) -> torch.Tensor:
        if where() and not torch.is_grad_enabled() and (ids.numel() > tokens or len(ids) > at_once):
            refused.append(ids.numel())
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", look_up)
    return refused


def killed_at_step(run: Run, step: int, main: Callable[[Run], int]) -> int:
    """The exit code of a process of its own that trains until SIGKILL ends it in the middle of a step's event."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            crash._AT, crash._left[0] = "events.step", step
            main(run)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
