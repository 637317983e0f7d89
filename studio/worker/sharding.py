"""One run on several devices: a copy of the model on each (DDP), or the model itself split over them (FSDP2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_map
from transformers import TrainingArguments

from studio.config import RunConfig
from studio.errors import RunError
from studio.method import KEPT, cast_trained_to_float32, is_cast_deferred
from studio.worker import distributed
from studio.worker.layer_compile import layers
from studio.worker.loss import has_plain_linear_head, plain


def strategy(config: RunConfig, model: Any) -> str:
    """ddp or fsdp. auto: split only where a copy with its training state would fill more than two thirds of a device."""
    if config.data.new_tokens:  # a table with rows of its own is not proved in parts
        return "ddp"
    if config.training.sharding != "auto" or not torch.cuda.is_available():
        return "ddp" if config.training.sharding == "auto" else config.training.sharding
    later = is_cast_deferred(model)
    state = sum(
        weight.numel()
        * (12 + (4 if later else weight.element_size()) if weight.requires_grad else weight.element_size())
        for weight in model.parameters()
    )
    return "fsdp" if state > torch.cuda.get_device_properties(0).total_memory * 2 / 3 else "ddp"


def may_shard(config: RunConfig) -> bool:
    """Whether the model may come to be split over several devices, which the size of what is trained tells (kind)."""
    return distributed.world_size() > 1 and config.training.sharding != "ddp" and not config.data.new_tokens


class ShardedTrainingArguments(TrainingArguments):
    """For a model that is split: it lies where it belongs."""

    @property
    def place_model_on_device(self) -> bool:
        return False


def distributed_arguments() -> dict[str, Any]:
    """What the Trainer is told of several processes; nothing where there is one. A split model sees to its own placement."""
    if distributed.world_size() == 1:
        return {}
    return {"ddp_find_unused_parameters": False, "ddp_backend": "nccl" if torch.cuda.is_available() else "gloo"}


def shard_model(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Split every weight over the processes (FSDP2): each layer is put together while it computes, and what lies around them as one more.

    dtype: that in which weights are sent and products computed; gradients are summed in float32. What is trained is cast to float32 layer by
    layer, on the device: the host of N processes holds N models in 16 bits, and a device one whole layer in 32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32)
    cast = is_cast_deferred(model)
    for layer in layers(plain(model)):
        if cast:
            cast_trained_to_float32(layer.to(device))
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    if cast:
        cast_trained_to_float32(model)
    # What lies around the layers stays together until its gradients are there: our loss leaves the model before its output (loss.py),
    # so nothing on the way back would tell FSDP that they are needed again.
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy)


def supported_optimizer(name: str, report: Any) -> str:
    """For a split model: bitsandbytes' optimizers take no parts of tensors."""
    if not any(word in name for word in ("8bit", "paged", "bnb")):
        return name
    report.note(f"The optimizer {name} does not work on a split model: fused AdamW takes its place.", "warning")
    return "adamw_torch_fused"


def supported_loss(config: RunConfig, wanted: str, model: Any, report: Any) -> str:
    """The loss as settled, or the full one where the head is not a plain linear whose weight is all there is to it."""
    if wanted == "chunked" and not has_plain_linear_head(model):
        report.note("The head is more than one linear layer: its logits are computed in full.")
        return "full"
    return wanted


def report_shard_sizes(model: Any, report: Any) -> None:
    """How much of the model each process holds, as a note with `held` (bytes, in the order of ranks) and `whole`."""
    mine = everything = 0
    for weight in model.parameters():
        part = _part(weight)
        mine += part.numel() * part.element_size()
        everything += weight.numel() * weight.element_size()
    held = distributed.gather(mine)
    sizes = " + ".join(f"{size / 1e9:.2f}" for size in held)
    text = (
        f"Each of {len(held)} processes holds the whole model."
        if min(held) == everything
        else f"The model is split over {len(held)} processes: {sizes} GB of {everything / 1e9:.2f}."
    )
    report.note(text, held=held, whole=everything)


# -- a split model's part of a checkpoint: each process writes and reads its own


def save_shard(model: Any, optimizer: Any, folder: Path) -> None:
    """Write this process's part of the trained weights, and of the optimizer's state where the Trainer does not: it writes the first one's."""
    reshard(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: _part(weight).detach().cpu().contiguous()
            for name, weight in model.named_parameters()
            if weight.requires_grad
        },
        folder / _named(KEPT),
    )
    if not distributed.is_main():
        torch.save(optimizer.state_dict(), folder / _named("optimizer.pt"))


def load_shard(model: Any, folder: Path) -> None:
    """Undo of keep, for the weights. Raises RunError where they do not fit."""
    reshard(model)
    kept, weights = (
        load_file(folder / _named(KEPT)),
        {name: weight for name, weight in model.named_parameters() if weight.requires_grad},
    )
    if {name: part.shape for name, part in kept.items()} != {
        name: _part(weight).shape for name, weight in weights.items()
    }:
        raise RunError(
            f"The checkpoint {folder.name} holds other trained weights than this order trains.",
            "Start the run anew.",
            str(folder),
        )
    with torch.no_grad():
        for name, weight in weights.items():
            _part(weight).copy_(kept[name])


def shard_optimizer_state(optimizer: torch.optim.Optimizer, trainer: Any) -> torch.optim.Optimizer:
    """Have an optimizer's state_dict hold this process's part, and load_state_dict make parts of whole tensors of it again, as the weights are.

    The Trainer loads the first process's file everywhere; the others then take their own, beside it in the checkpoint that is resumed.
    """
    from torch.distributed.tensor import DTensor

    def own(_: Any, state: dict[str, Any]) -> dict[str, Any] | None:
        resuming = state["state"] and not distributed.is_main()
        return (
            torch.load(trainer.resumed / _named("optimizer.pt"), map_location="cpu", weights_only=True)
            if resuming
            else None
        )

    def joined(_: Any) -> None:
        for weight, state in optimizer.state.items():
            for key, value in state.items():
                if (
                    isinstance(weight, DTensor)
                    and isinstance(value, torch.Tensor)
                    and value.shape == _part(weight).shape
                    and value.dim()
                ):
                    state[key] = DTensor.from_local(
                        value,
                        weight.device_mesh,
                        weight.placements,
                        run_check=False,
                        shape=weight.shape,
                        stride=weight.stride(),
                    )

    optimizer.register_state_dict_post_hook(lambda _, state: tree_map(_part, state))
    optimizer.register_load_state_dict_pre_hook(own)
    optimizer.register_load_state_dict_post_hook(joined)
    return optimizer


def reshard(model: Any) -> None:
    """What an evaluation has left together is given back."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _part(value: Any) -> Any:
    return value.to_local() if hasattr(value, "to_local") else value


def _named(file: str) -> str:
    """trained.safetensors for the first process, trained_1.safetensors for the next."""
    stem, _, ending = file.rpartition(".")
    return file if distributed.is_main() else f"{stem}_{distributed.rank()}.{ending}"


def gather_full_model(trainer: Any) -> Any:
    """The trained model in one piece, to be saved by the first process. A split one is put together in its RAM, weight by weight: all must call it."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if not trainer.split:
        return model
    from torch.distributed.fsdp import FSDPModule

    reshard(model)
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if hasattr(weight, "full_tensor"):
                if weight not in made:
                    full = weight.detach().full_tensor()
                    made[weight] = torch.nn.Parameter(
                        full.cpu() if distributed.is_main() else full.new_empty(0), weight.requires_grad
                    )
                module._parameters[name] = made[weight]
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.__class__ = type(module).__bases__[1]
    return model
