"""Passes through the model outside of training (loss check, memory probe) that leave no trace in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


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
