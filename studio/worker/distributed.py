"""The processes of one run: rank, world size, and small values exchanged over gloo, which does not wait for a GPU."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as distributed
from accelerate.utils import check_cuda_p2p_ib_support


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def local_world_size() -> int:
    """Processes of the run on this host, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def local_rank() -> int:
    """This process's number on its host, and so that of its device."""
    return int(os.environ.get("LOCAL_RANK", 0))


def set_current_device() -> None:
    """Make this process's device torch's current one, on which bitsandbytes and from_pretrained put things.

    RTX 40 cards under an old driver reach each other by neither way that NCCL tries first; accelerate refuses them.
    """
    if torch.cuda.is_available():
        if not check_cuda_p2p_ib_support():
            os.environ.update(NCCL_P2P_DISABLE="1", NCCL_IB_DISABLE="1")
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    elif torch.accelerator.is_available() and torch.accelerator.device_count() > 1:
        torch.accelerator.set_device_index(local_rank() % torch.accelerator.device_count())


def to_device(model: Any, kind: str) -> Any:
    """The model on this process's device of a kind (cuda, cpu, …). A quantized one is there already."""
    if kind == "cpu" or getattr(model, "quantization_method", None):
        return model
    return model.to(torch.device(kind, local_rank()) if world_size() > 1 else torch.device(kind))


def to_local(tensor: Any) -> Any:
    """This process's shard of a tensor that FSDP has split (DTensor), else the value itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def is_main() -> bool:
    """Whether this is the process that writes and decides."""
    return rank() == 0


@lru_cache(maxsize=1)
def _gloo_group() -> Any:
    return distributed.new_group(backend="gloo")


def broadcast(value: Any) -> Any:
    """The first process's value, on every process."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0, group=_gloo_group())
    return values[0]


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value, group=_gloo_group())
    return values
