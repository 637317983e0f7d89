"""The base model as an order needs it: in which type and attention it is loaded, and what the method makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType
from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers
from transformers import set_seed

from studio import auto, data, memory_peak, new_tokens, token_rows
from studio.config import RunConfig
from studio.errors import OrderError, reason_of
from studio.resolve import Resolved
from studio.worker import (
    adamw,
    attention,
    distributed,
    dynamic_rope,
    fast_lora,
    fused_kernels,
    loss_check,
    memory,
    reward_head,
    sharding,
)
from studio.worker.report import Report


def load_in_finite_precision(
    config: RunConfig, resolved: Resolved, folder: Path, rows: data.Prepared, report: Report
) -> tuple[Resolved, Any, Any]:
    """(resolved, base, tuned), in float32 where fp16 cannot hold the numbers. Raises OrderError if fp16 was ordered."""
    base, tuned = load_and_wrap(config, resolved, folder)
    report.precision = resolved.dtype
    device = next(tuned.parameters()).device
    if resolved.dtype != "float16" or loss_check.is_finite(tuned, rows.train.first(4), torch.float16, device):
        return resolved, base, tuned
    if config.training.precision == "fp16":
        message = "This model's numbers go beyond what fp16 holds: its loss is not a number before the first step."
        hint = "Set training.precision to auto: it then computes in float32."
        raise OrderError(message, hint, "training.precision")
    why = "this model's numbers go beyond what fp16 holds"
    report.note(f"Computed in float32: {why}. That is slower, and the base takes twice the memory.", "warning")
    report.precision = "float32"
    resolved = resolved._replace(dtype="float32", autocast=None, why={**resolved.why, "precision": why})
    del base, tuned
    memory.empty_cache()
    set_seed(config.training.seed)
    return resolved, *load_and_wrap(config, resolved, folder)


def load_and_wrap(config: RunConfig, resolved: Resolved, folder: Path) -> tuple[Any, Any]:
    """(base model, the model that the method makes of it), on the device.

    The base is moved before it is wrapped: what wrapping adds and computes, partly in float32, is then on the device
    too.
    """
    base = load_base(config, resolved, folder)
    return base, wrap_base(config, resolved, base)


def attention_kernel(config: RunConfig, resolved: Resolved) -> str | None:
    """The attention that a base is loaded with; None: transformers' choice, SDPA, or eager where that is missing."""
    attention.register()
    kernel = attention.PACKED_ATTENTION if resolved.attention == "sdpa" and not resolved.masked else resolved.attention
    return None if kernel == "sdpa" and config.training.attention == "auto" else kernel


def load_base(config: RunConfig, resolved: Resolved, folder: Path) -> Any:
    """The base model on the device, with rows for the order's new tokens."""
    kernel, dtype = attention_kernel(config, resolved), getattr(torch, resolved.dtype)
    as_stored = sharding.may_shard(config) and config.method.quantized() is None and resolved.weights == "float32"
    base = config.method.load(folder, "auto" if as_stored else dtype, attn_implementation=kernel)
    dynamic_rope.each_as_alone(base)
    if resolved.device == "cpu":
        memory_peak.begin_anew()  # weights of another type than the file's are no longer in it
    if resolved.fused_kernels:
        fused_kernels.fuse(base)
    base = token_rows.add_rows(base, new_tokens.assign_ids(folder, config.data.new_tokens))
    if sharding.may_shard(config):
        base.defer_float32_cast = True  # it need not fit on one device, nor in 32 bits on the host of all processes
        return sharding.as_stored(base, dtype) if as_stored else base
    return distributed.to_device(base, resolved.device)


def check_loads_again(tuned: Any) -> None:
    """Raise ValueError where peft would look for a LoRA's weights under other names than it saves them by.

    transformers' renamings of checkpoint keys are applied to an adapter's too. Of the weights only names and shapes
    are read: a state dict would pack those of 4 bits, and wait for the device.
    """
    if not isinstance(tuned, PeftModel) or tuned.active_peft_config.peft_type != PeftType.LORA:
        return
    saved = {
        re.sub(r"\.default(\.weight)?$", r"\1", name): torch.empty_like(weight, device="meta")
        for name, weight in tuned.named_parameters()
        if ".lora_" in name
    }
    read = convert_peft_adapter_state_dict_for_transformers(tuned, tuned.active_peft_config, saved)
    if lost := sorted(read.keys() - saved.keys()):
        raise ValueError(f"peft could not load the result again, it looks for {lost[0]}")


def _narrow_trained_table(tuned: Any, dtype: torch.dtype) -> None:
    """Give the layers what they read in the base's dtype, where the embedding is trained whole beside an adapter.

    Autocast on a CPU leaves layer_norm alone, which takes no float32 under weights of 16 bits.
    """
    table = tuned.get_input_embeddings()
    if getattr(table, "modules_to_save", None):
        table.register_forward_hook(lambda module, inputs, embedded: embedded.to(dtype))


def wrap_base(config: RunConfig, resolved: Resolved, base: Any) -> Any:
    """The model that the method makes of a base. What starts at random does so from the order's seed."""
    set_seed(config.training.seed)
    try:
        tuned = config.method.wrap(base)
        check_loads_again(tuned)
    except (ValueError, LookupError, TypeError, AttributeError, NotImplementedError) as error:  # peft's own refusals
        message = f"{config.method.label} cannot be put on this {base.config.model_type} model: {reason_of(error)}."
        hint = "Take another method, or other settings of this one."
        raise OrderError(message, hint, "method.name") from error
    if resolved.autocast is not None and resolved.device == "cpu":
        _narrow_trained_table(tuned, getattr(torch, resolved.autocast))
    if resolved.weights == "bfloat16":
        adamw.cast_trained_to_bf16(tuned).defer_float32_cast = False
    if auto.fast_lora(config):
        fast_lora.speed_up_lora(tuned, resolved.autocast is not None)
    return reward_head.add(tuned) if config.stage.scores else tuned
