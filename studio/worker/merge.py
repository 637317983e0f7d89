"""Merge: an adapter worked into the weights of its base, in float32, tensor by tensor where the method allows.

W' = W + s·B·A is rounded once, when it is written: linear layers as rounding.py has prepared them where it could, the rest by chance.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from studio.errors import ExportError
from studio.methods import METHODS
from studio.talk.voice import Voice

SHARD = 4_000_000_000  # bytes of one file of a merged model
Weights = Iterator[tuple[str, torch.Tensor]]


def weights(voice: Voice) -> Weights:
    """Every stored tensor of the merged model, in float32, one at a time. Raises ExportError where the method cannot be merged.

    A plain LoRA goes through the base's files with one tensor in memory; DoRA, (IA)³ and whole copies of modules need the model.
    """
    if voice.result is None:
        yield from _stored(voice.base)
    elif voice.whole and not voice.checkpoint:
        yield from _stored(voice.result)
    elif voice.whole:
        yield from _through_the_model(voice)
    elif not voice.method.mergeable:
        raise ExportError(f"{voice.method.label} cannot be merged. {voice.method.cannot_merge}", "Export the adapter instead.", "method.name")
    elif (plain := _plain_lora(voice.result, voice.base)) is not None:
        yield from _one_by_one(voice, *plain)
    else:
        yield from _through_the_model(voice)


def _stored(folder: Path) -> Weights:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a dict
                yield name, _float(stored.get_tensor(name))


def _float(weight: torch.Tensor) -> torch.Tensor:
    return weight.float() if weight.is_floating_point() else weight


def _plain_lora(folder: Path, base: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """The adapter's config and matrices if each is a B·A beside a stored weight and nothing more; else None."""
    if not (folder / "adapter_config.json").is_file():
        return None
    config = json.loads((folder / "adapter_config.json").read_text())
    odd = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias", "layer_replication", "target_parameters",
           "trainable_token_indices", "use_qalora", "use_bdlora")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or any(config.get(key) for key in odd):
        return None
    with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
        matrices = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    names = {name for file in base.glob("*.safetensors") for name in safe_open(file, "pt").keys()}  # noqa: SIM118
    if not all((found := re.fullmatch(r"base_model\.model\.(.+)\.lora_[AB]\.weight", name)) and found[1] + ".weight" in names for name in matrices):
        return None
    return config, matrices


def _one_by_one(voice: Voice, config: dict[str, Any], matrices: dict[str, torch.Tensor]) -> Weights:
    """s = alpha / r (LoRA, arXiv 2106.09685, section 4.1), alpha / √r with rsLoRA (arXiv 2312.03732)."""
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    for name, weight in _stored(voice.base):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in matrices:
            weight = weight + scale * (matrices[f"{stem}.lora_B.weight"] @ matrices[f"{stem}.lora_A.weight"])
        yield name, weight


def _through_the_model(voice: Voice) -> Weights:
    """The base as 16-bit files hold it, opened in float32, with the result attached and merged by peft."""
    base = METHODS["full"]().load(voice.base, torch.float32)
    if voice.checkpoint:
        wrapped = voice.method.wrap(base)
        voice.method.restore(wrapped, voice.result)
        merged = voice.method.merge(wrapped) if voice.method.adapter else wrapped
    else:
        merged = voice.method.merge(voice.method.attach(base, voice.result))
    tied = set(getattr(merged, "_tied_weights_keys", None) or ()) if merged.config.get_text_config().tie_word_embeddings else set()
    for name, weight in merged.state_dict().items():
        if name not in tied and not name.endswith("inv_freq"):
            yield name, _float(weight.detach())


def merge(voice: Voice, out: Path, dtype: torch.dtype, prepared: dict[str, torch.Tensor] | None = None) -> None:
    """Write the merged weights as safetensors shards with their index. prepared: tensors in dtype that are written in the place of their own."""
    from safetensors.torch import save_file
    shard: dict[str, torch.Tensor] = {}
    files: list[list[str]] = []
    held = total = 0
    random = torch.Generator().manual_seed(0)  # the same merge gives the same file

    def write() -> None:
        nonlocal shard, held
        save_file(shard, out / f"part-{len(files)}.safetensors", metadata={"format": "pt"})
        files.append(list(shard))
        shard, held = {}, 0

    for name, weight in weights(voice):
        ready = (prepared or {}).get(name)
        weight = (rounded(weight, dtype, random) if ready is None else ready).contiguous().clone()
        size = weight.numel() * weight.element_size()
        if shard and held + size > SHARD:
            write()
        shard[name] = weight
        held, total = held + size, total + size
    write()
    _rename(out, files, total)


def rounded(weight: torch.Tensor, dtype: torch.dtype, random: torch.Generator) -> torch.Tensor:
    """float32 to the type of the file; to bf16 up or down by chance, each as likely as it is near (stochastic rounding).

    An adapter's change is often smaller than half the gap between two bf16 numbers. To the nearest, most of it would fall back to
    W: an error that points the same way everywhere. By chance it is kept on average. What bf16 holds exactly stays as it is.
    LoRA on the starter, error of the logits and answers alike: nearest 0.21, 8 of 20; by chance 0.044, 17; carried on (rounding.py) 0.017, 19.
    """
    if not weight.is_floating_point():
        return weight
    if dtype == torch.float16 and weight.abs().max() > torch.finfo(dtype).max:
        raise ExportError("A weight of this model is too large for float16.", "Leave --precision out: the base's own type holds it.", "--precision")
    if dtype != torch.bfloat16 or weight.dtype != torch.float32:
        return weight.to(dtype)
    count = weight.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=random).view(torch.int16)[:count]
    bits = weight.contiguous().view(torch.int32) + (draws.to(torch.int32) & 0xFFFF).view(weight.shape)
    moved = (bits & ~0xFFFF).view(torch.float32).to(torch.bfloat16)
    return torch.where(weight.isfinite() & moved.isfinite(), moved, weight.to(torch.bfloat16))


def _rename(out: Path, files: list[list[str]], total: int) -> None:
    """The names that transformers looks for: model.safetensors alone, or numbered shards with an index."""
    if len(files) == 1:
        (out / "part-0.safetensors").rename(out / "model.safetensors")
        return
    where = {}
    for place, names in enumerate(files):
        target = f"model-{place + 1:05}-of-{len(files):05}.safetensors"
        (out / f"part-{place}.safetensors").rename(out / target)
        where |= dict.fromkeys(names, target)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1))
