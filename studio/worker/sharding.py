"""One run on several devices: a copy of the model on each (DDP), or the model itself sharded over them (FSDP2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_map
from transformers import TrainingArguments

from studio.config import RunConfig
from studio.method import (
    TRAINED_WEIGHTS,
    cast_trained_to_float32,
    check_same_weights,
    is_cast_deferred,
    trained_weights,
)
from studio.worker import distributed
from studio.worker.decoder_layers import decoder_layers
from studio.worker.distributed import to_local
from studio.worker.loss import has_plain_linear_head, unwrap

ONE_BUCKET = 2**29  # bytes of gradients up to which they are summed at once


def strategy(config: RunConfig, model: Any) -> str:
    """ddp or fsdp. auto: fsdp only where a copy with its training state would fill more than two thirds of a device."""
    if not _is_proved(config):
        return "ddp"
    if config.training.sharding != "auto":
        return config.training.sharding
    if not torch.cuda.is_available():
        return "ddp"
    num_bytes, stored = 0, getattr(model, "stored_dtype", None)
    for weight in model.parameters():
        is_cast = weight.dtype == stored and not weight.requires_grad
        num_bytes += weight.numel() * (model.config.dtype.itemsize if is_cast else weight.element_size())
        if weight.requires_grad:  # gradient and two moments; the float32 weight instead of the 16-bit one
            num_bytes += weight.numel() * (16 - weight.element_size() if is_cast_deferred(model) else 12)
    return "fsdp" if num_bytes > torch.cuda.get_device_properties(0).total_memory * 2 / 3 else "ddp"


def may_shard(config: RunConfig) -> bool:
    """Whether `strategy` may come to fsdp once the model is there."""
    return distributed.world_size() > 1 and config.training.sharding != "ddp" and _is_proved(config)


def _is_proved(config: RunConfig) -> bool:
    """Whether FSDP is proved for an order: not for new tokens' rows, nor for losses that compare answers."""
    return not config.data.new_tokens and config.stage.is_supervised


class ShardedTrainingArguments(TrainingArguments):
    """A sharded model lies where it belongs already."""

    @property
    def place_model_on_device(self) -> bool:
        return False


def distributed_arguments(model: Any, device: str) -> dict[str, Any]:
    """TrainingArguments of several processes; none where there is one. device: torch's kind of theirs.

    Gradients of an adapter are few: they go in one all-reduce, where DDP's buckets of 25 MiB would be several.
    """
    if distributed.world_size() == 1:
        return {}
    backend = torch.distributed.get_default_backend_for_device(device)
    arguments = {"ddp_find_unused_parameters": False, "ddp_backend": backend}
    sizes = [weight.numel() * 4 for weight in trained_weights(model).values()]
    if sum(sizes) <= ONE_BUCKET:
        arguments["ddp_bucket_cap_mb"] = sum(sizes) // 2**20 + 1
    return arguments


def as_stored(base: Any, dtype: torch.dtype) -> Any:
    """The base with its weights as its files store them, which a host's processes share. dtype: of its products."""
    base.stored_dtype, base.config.dtype = base.dtype, dtype
    return base


def cast_deferred(module: Any, model: Any, dtype: torch.dtype) -> None:
    """Cast a part of a model, one weight after the other: trained ones to float32, those as stored to dtype."""
    stored = getattr(model, "stored_dtype", None)
    for weight in module.parameters():
        if not weight.requires_grad and weight.dtype == stored:
            weight.data = weight.data.to(dtype)
    cast_trained_to_float32(module)


def shard_model(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Shard every weight over the processes (FSDP2): one unit for each layer, one for what lies around them.

    dtype: in which weights are gathered and products computed; gradients are reduced in float32. Weights are cast layer
    by layer on the device: a device holds one layer in 32 bits, and the host of N processes one file.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32)
    cast = is_cast_deferred(model)
    for layer in decoder_layers(unwrap(model)):
        if cast:
            cast_deferred(layer.to(device), model, dtype)
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    if cast:
        cast_deferred(model, model, dtype)
    # The outer unit stays gathered from forward to backward: our loss leaves the model before its output (loss.py), so
    # nothing in backward would tell FSDP that it is needed again.
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy)


def supported_optimizer(name: str, report: Any) -> str:
    """The optimizer, or fused AdamW in place of bitsandbytes', which do not take DTensors."""
    if not any(word in name for word in ("8bit", "paged", "bnb")):
        return name
    report.note(f"The optimizer {name} does not work on a split model: fused AdamW takes its place.", "warning")
    return "adamw_torch_fused"


def supported_loss(kind: str, model: Any, report: Any) -> str:
    """The kind of loss, or the full one where the head is not a plain linear."""
    if kind == "chunked" and not has_plain_linear_head(model):
        report.note("The head is more than one linear layer: its logits are computed in full.")
        return "full"
    return kind


def report_shard_sizes(model: Any, report: Any) -> None:
    """Note how much of the model each process holds: `held` (bytes, in the order of ranks) and `whole`."""
    local_bytes = sum(to_local(weight).numel() * weight.element_size() for weight in model.parameters())
    total_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    held = distributed.gather(local_bytes)
    sizes = " + ".join(f"{size / 2**30:.2f}" for size in held)
    text = (
        f"Each of {len(held)} processes holds the whole model."
        if min(held) == total_bytes
        else f"The model is split over {len(held)} processes: {sizes} GiB of {total_bytes / 2**30:.2f}."
    )
    report.note(text, held=held, whole=total_bytes)


# -- a sharded model's checkpoint: each process writes and reads its own shard


def save_shard(model: Any, optimizer: Any, folder: Path) -> None:
    """Write this process's shard of weights and optimizer state; the Trainer writes the first one's state."""
    reshard(model)
    folder.mkdir(parents=True, exist_ok=True)
    shards = {name: to_local(weight).detach().cpu().contiguous() for name, weight in trained_weights(model).items()}
    save_file(shards, folder / _rank_file(TRAINED_WEIGHTS))
    if not distributed.is_main():
        torch.save(optimizer.state_dict(), folder / _rank_file("optimizer.pt"))


def load_shard(model: Any, folder: Path) -> None:
    """Load the weights that save_shard wrote. Raises RunError where they do not fit."""
    reshard(model)
    stored = load_file(folder / _rank_file(TRAINED_WEIGHTS))
    shards = {name: to_local(weight) for name, weight in trained_weights(model).items()}
    check_same_weights(stored, shards, folder)
    with torch.no_grad():
        for name, shard in shards.items():
            shard.copy_(stored[name])


def shard_optimizer_state(optimizer: torch.optim.Optimizer, trainer: Any) -> torch.optim.Optimizer:
    """The optimizer with hooks: state_dict returns this process's shards, load_state_dict turns shards into DTensors.

    The Trainer loads the first process's file everywhere; the others then read their own from the same checkpoint.
    """
    from torch.distributed.tensor import DTensor

    def read_own_file(_: Any, state: dict[str, Any]) -> dict[str, Any] | None:
        if not state["state"] or distributed.is_main():
            return None
        return torch.load(trainer.resumed_from / _rank_file("optimizer.pt"), map_location="cpu", weights_only=True)

    def make_dtensors(_: Any) -> None:
        for weight, state in optimizer.state.items():
            if not isinstance(weight, DTensor):
                continue
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.dim() and value.shape == to_local(weight).shape:
                    state[key] = DTensor.from_local(
                        value,
                        weight.device_mesh,
                        weight.placements,
                        run_check=False,
                        shape=weight.shape,
                        stride=weight.stride(),
                    )

    optimizer.register_state_dict_post_hook(lambda _, state: tree_map(to_local, state))
    optimizer.register_load_state_dict_pre_hook(read_own_file)
    optimizer.register_load_state_dict_post_hook(make_dtensors)
    return optimizer


def reshard(model: Any) -> None:
    """Free what an evaluation has left gathered."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _rank_file(name: str) -> str:
    """trained.safetensors for the first process, trained_1.safetensors for the next."""
    stem, _, ending = name.rpartition(".")
    return name if distributed.is_main() else f"{stem}_{distributed.rank()}.{ending}"


def gather_full_model(trainer: Any) -> Any:
    """The trained model, to be saved by the first process. All must call it: a sharded one is gathered."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if not trainer.sharded:
        return model
    from torch.distributed.fsdp import FSDPModule

    reshard(model)
    gathered: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if not hasattr(weight, "full_tensor"):
                continue
            if weight not in gathered:
                full = weight.detach().full_tensor()
                full = full.cpu() if distributed.is_main() else full.new_empty(0)
                gathered[weight] = torch.nn.Parameter(full, weight.requires_grad)
            module._parameters[name] = gathered[weight]
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.__class__ = type(module).__bases__[1]
    return model
