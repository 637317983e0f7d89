"""The training step, without a run."""

from __future__ import annotations

import contextlib
import weakref
from types import SimpleNamespace
from typing import Any

import torch

from studio.worker.trainer import StudioTrainer


class Doubled(torch.autograd.Function):
    """2 · x, whose place in the graph can be watched."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, watched: list[Any]) -> torch.Tensor:
        ctx.mark = torch.nn.Identity()
        watched.append(weakref.ref(ctx.mark))
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return 2 * grad, None


def test_a_micro_batch_s_graph_is_gone_before_the_next() -> None:
    weight, graphs = torch.ones(3, requires_grad=True), []

    def loss(model: Any, micro_batch: Any) -> torch.Tensor:
        assert all(graph() is None for graph in graphs)
        return Doubled.apply(weight, graphs).sum()

    trainer = SimpleNamespace(
        args=SimpleNamespace(device=torch.device("cpu")),
        optimizer=None,
        objective=None,
        brake=None,
        dtype=torch.float32,
        report=SimpleNamespace(num_tokens=0),
        world_size=1,
        micro_batch_loss=loss,
        accelerator=SimpleNamespace(no_sync=lambda model: contextlib.nullcontext(), backward=torch.Tensor.backward),
    )
    total = StudioTrainer.training_step(trainer, torch.nn.Module(), [{"num_items_in_batch": 6, "num_tokens": 6}] * 3)
    assert trainer.report.num_tokens == 6
    assert total.item() == 3.0
    assert weight.grad.tolist() == [1.0] * 3
