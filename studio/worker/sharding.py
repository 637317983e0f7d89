"""One run on several devices: a copy of the model on each (DDP), or the model itself split over them (FSDP2)."""

from __future__ import annotations

import os
from typing import Any

import torch

from studio.config import RunConfig
from studio.worker import together
from studio.worker.loss import simple_head


def kind(config: RunConfig, model: Any) -> str:
    """ddp or fsdp. auto: split only where a copy with its training state would fill more than two thirds of a device."""
    if config.training.sharding != "auto" or not torch.cuda.is_available():
        return "ddp" if config.training.sharding == "auto" else config.training.sharding
    state = sum(weight.numel() * (weight.element_size() + (12 if weight.requires_grad else 0)) for weight in model.parameters())
    return "fsdp" if state > torch.cuda.get_device_properties(0).total_memory * 2 / 3 else "ddp"


def arguments(config: RunConfig, model: Any) -> dict[str, Any]:
    """What the Trainer is told of it; nothing on one device."""
    if together.world() == 1:
        return {}
    chosen: dict[str, Any] = {"ddp_find_unused_parameters": False, "ddp_backend": "nccl" if torch.cuda.is_available() else "gloo"}
    if kind(config, model) == "fsdp":
        os.environ.setdefault("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")
        chosen |= {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    return chosen


def loss(config: RunConfig, wanted: str, model: Any, report: Any) -> str:
    """The loss as settled, or the full one where the head is not a plain linear whose weight is all there is to it."""
    if wanted == "chunked" and not simple_head(model):
        report.note("The head is more than one linear layer: its logits are computed in full.")
        return "full"
    return wanted


def whole(trainer: Any) -> Any:
    """The trained model in one piece, to be saved by the first process; on several with FSDP all must call it."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if not trainer.is_fsdp_enabled:
        return model
    for module in reversed(list(model.modules())):
        if hasattr(module, "unshard"):
            module.unshard()
    return model
