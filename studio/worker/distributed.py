"""Several processes of one run that must do the same: who is first, and how a word gets round without waiting for a GPU."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as distributed


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def local_world_size() -> int:
    """Processes of the run on this host, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def local_rank() -> int:
    """Which of this host's processes this is, and so which of its devices it takes."""
    return int(os.environ.get("LOCAL_RANK", 0))


def set_current_device() -> None:
    """Tell torch this process's card before anything is put on one: bitsandbytes and from_pretrained ask for the current one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    elif torch.accelerator.is_available() and torch.accelerator.device_count() > 1:
        torch.accelerator.set_device_index(local_rank() % torch.accelerator.device_count())


def to_device(model: Any, kind: str) -> Any:
    """The model on this process's device of a kind (cuda, cpu, …). One in 4 or 8 bits is there already: its packing is done by the device."""
    if kind == "cpu" or getattr(model, "quantization_method", None):
        return model
    return model.to(torch.device(kind, local_rank()) if world_size() > 1 else torch.device(kind))


def is_main() -> bool:
    """Whether this process is the one that writes and decides."""
    return rank() == 0


@lru_cache(maxsize=1)
def _group() -> Any:
    """A group of its own on the CPU: words do not queue up behind the GPU's work."""
    return distributed.new_group(backend="gloo")


def broadcast(word: Any) -> Any:
    """What the first process says, on every process."""
    if world_size() == 1:
        return word
    box = [word]
    distributed.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def gather(number: int) -> list[int]:
    """Every process's number, in the order of ranks."""
    if world_size() == 1:
        return [number]
    box: list[Any] = [None] * world_size()
    distributed.all_gather_object(box, number, group=_group())
    return box
