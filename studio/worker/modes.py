"""Contexts for passes through a run's model that are no training: in eval mode, as its base, without side effects."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from studio.worker import sharding


@contextmanager
def evaluating(trainer: Any) -> Iterator[Any]:
    """The trainer's model without DDP around it, in eval mode and in the precision of the run."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    was_training = model.training
    model.eval()
    try:
        with trainer.accelerator.autocast():
            yield model
    finally:
        model.train(was_training)
        if trainer.sharded:
            sharding.reshard(model)


def keeps_base(model: Any) -> bool:
    """Whether the base's weights are unchanged beside an adapter. PiSSA and OLoRA take their start out of them."""
    return hasattr(model, "disable_adapter") and not hasattr(model, "initial_lora")


def as_base(model: Any) -> AbstractContextManager[Any]:
    """The context in which a wrapped model computes what the base does, where it keeps it: its adapter is off.

    One without an adapter, or with PiSSA's, is the base as long as it was not trained.
    """
    return model.disable_adapter() if keeps_base(model) else nullcontext()


@contextmanager
def without_side_effects(model: Any) -> Iterator[None]:
    """Restores the random states and drops the gradients at the end."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    state = random.getstate()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(state)
            model.zero_grad(set_to_none=True)
