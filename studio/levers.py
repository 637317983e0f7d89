"""Every `auto` of the training settings, settled in one place: which precision, loss, optimizer, … and why."""

from __future__ import annotations

from typing import Any, NamedTuple

from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError
from studio.model import ModelFacts


class Settled(NamedTuple):
    """The settings with no auto left. dtype and autocast are torch's names; autocast None: off."""

    device: str
    dtype: str
    autocast: str | None
    checkpointing: bool
    optimizer: str
    loss: str
    batch_size: int
    accumulation: int
    steps: int
    eval_every: int
    save_every: int
    threads: int

    def told(self) -> dict[str, Any]:
        """For the diary."""
        return {"device": self.device, "precision": self.dtype, "checkpointing": self.checkpointing, "optimizer": self.optimizer, "loss": self.loss}


def settle(config: RunConfig, facts: ModelFacts, device: Device, rows: Any) -> Settled:
    """Settle by device, model and data (rows: anything with len(rows.train)). Raises OrderError for what the device cannot do."""
    training = config.training
    steps = training.steps(len(rows.train))
    every = max(1, round(steps / 10))
    dtype = precision(config, device)
    eval_every = every if training.eval_every == "auto" else training.eval_every
    return Settled(
        device=device.kind, dtype=dtype, autocast=None if dtype == "float32" else dtype,
        checkpointing=training.checkpointing is True, optimizer=(config.method.optimizer(device) or "adamw_torch_fused") if training.optimizer == "auto" else training.optimizer,
        loss="full" if training.label_smoothing else "chunked" if training.loss == "auto" else training.loss,
        batch_size=training.batch_size, accumulation=training.accumulated(len(rows.train)), steps=steps, eval_every=eval_every,
        save_every=eval_every if training.save_every == "auto" else training.save_every,
        threads=device.cores or 1 if training.threads == "auto" else training.threads)


def precision(config: RunConfig, device: Device) -> str:
    """bf16 where the device computes in it, fp16 on older CUDA cards, else float32."""
    wanted = config.training.precision
    if wanted == "bf16" and device.kind == "cuda" and not device.bf16:
        raise OrderError(f"{device.name} cannot compute in bf16.", "Set training.precision to auto or fp16.", "training.precision")
    if wanted == "auto":
        wanted = "bf16" if device.bf16 else "fp16" if device.kind == "cuda" else "fp32"
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[wanted]
