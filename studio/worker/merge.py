"""Merge: an adapter worked into the weights of its base: W' = W + s·B·A in float32, rounded once to the type of the file.

Tensor by tensor where the adapter is plain LoRA; through the whole model, opened in float32, where it is not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from studio import device, model, token_rows
from studio.base.shards import weight_files
from studio.errors import DeviceError, ExportError
from studio.methods import METHODS
from studio.methods.lora import BEYOND_PLAIN
from studio.model import TABLES
from studio.talk.reference import ModelReference
from studio.token_rows import DELTA_SUFFIX

SHARD = 4_000_000_000  # bytes of one file of a merged model
Weights = Iterator[tuple[str, torch.Tensor]]


def weights(voice: ModelReference) -> Weights:
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
        raise ExportError(
            f"{voice.method.label} cannot be merged. {voice.method.cannot_merge}",
            "Export the adapter instead.",
            "method.name",
        )
    elif (plain := _plain_lora(voice.result, voice.base)) is not None:
        yield from _one_by_one(voice, *plain)
    else:
        yield from _through_the_model(voice)


def _stored(folder: Path) -> Weights:
    for file in weight_files(folder):
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
    if (
        config.get("peft_type") != "LORA"
        or config.get("bias", "none") != "none"
        or any(config.get(key) for key in ("fan_in_fan_out", *BEYOND_PLAIN))
    ):
        return None
    with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
        matrices = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    names = {name for file in weight_files(base) for name in safe_open(file, "pt").keys()}  # noqa: SIM118
    known = re.compile(rf"base_model\.model\.(.+)(?:\.lora_[AB]\.weight|{re.escape(DELTA_SUFFIX)})")
    if not all((found := known.fullmatch(name)) and found[1] + ".weight" in names for name in matrices):
        return None
    return config, matrices


def _one_by_one(voice: ModelReference, config: dict[str, Any], matrices: dict[str, torch.Tensor]) -> Weights:
    """s = alpha / r (LoRA, arXiv 2106.09685, section 4.1), alpha / √r with rsLoRA (arXiv 2312.03732)."""
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    facts, alone = model.facts(voice.base), token_rows.saved_indices(voice.result)
    tables = {name: f"base_model.model.{name.removesuffix('.weight')}" for name in facts.tables()}
    if facts.tie_word_embeddings:
        tables |= {head: next(iter(tables.values())) for head in _HEADS}  # stored a second time
    for name, weight in _stored(voice.base):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in matrices:
            weight = weight + scale * (matrices[f"{stem}.lora_B.weight"] @ matrices[f"{stem}.lora_A.weight"])
        if alone and (values := matrices.get(tables.get(name, stem) + DELTA_SUFFIX)) is not None:
            weight = token_rows.overwrite_rows(weight, _rows_of(alone, tables.get(name, stem)), values)
        yield name, weight


def _rows_of(alone: dict[str, list[int]], stem: str) -> list[int]:
    """The rows of a table that an adapter trains alone: peft names tables by the end of their name, or the embedding not at all."""
    return next((rows for name, rows in alone.items() if name and stem.endswith(name)), alone.get("", []))


def _through_the_model(voice: ModelReference) -> Weights:
    """The base as 16-bit files hold it, opened in float32, with the result attached and merged by peft.

    A head that shares the embedding's table gets a copy first: an adapter may change one of them alone. Where both are the same still, one is told.
    """
    facts = model.facts(voice.base)
    _room(
        4 * (facts.parameters + facts.vocab_size * facts.hidden_size),
        "To merge this kind of adapter the whole model is opened in float32",
    )
    base = token_rows.add_rows(METHODS["full"]().load(voice.base, torch.float32), voice.added)
    if voice.method.adapter and not _rows_alone(voice):
        base = untied(base)
    if voice.checkpoint:
        wrapped = voice.method.wrap(base)
        voice.method.load_checkpoint(wrapped, voice.result)
        merged = voice.method.merge(wrapped) if voice.method.adapter else wrapped
    else:
        merged = voice.method.merge(voice.method.attach(base, voice.result))
    head, table = merged.get_output_embeddings(), merged.get_input_embeddings()
    same = facts.tie_word_embeddings and torch.equal(head.weight, table.weight)
    for name, weight in merged.state_dict().items():
        if not name.endswith("inv_freq") and not (same and name in _HEADS):
            yield name, _float(weight.detach())


def _rows_alone(voice: ModelReference) -> bool:
    """Whether of the tables only rows are trained, which are one and the same in a tied head."""
    whole = any(TABLES.search(f"{word}.weight") for word in getattr(voice.method, "modules_to_save", ()))
    return bool(voice.added.rows) and not whole if voice.checkpoint else bool(token_rows.saved_indices(voice.result))


_HEADS = ("lm_head.weight", "embed_out.weight")


def untied(whole: Any) -> Any:
    """The model with a head of its own, where its head was the embedding's table."""
    head, table = whole.get_output_embeddings(), whole.get_input_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = torch.nn.Parameter(table.weight.detach().clone(), requires_grad=False)
        whole.config.get_text_config().tie_word_embeddings = whole.config.tie_word_embeddings = False
    return whole


def _room(need: int, what: str) -> None:
    """Raise DeviceError where the computer's memory has not so many bytes free."""
    free = device.cpu().free
    if need > free:
        raise DeviceError(
            f"{what}: {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free.",
            "End the chat and trainings first, close other programs, or export the adapter: that needs no merge.",
            "memory",
        )


def merge(voice: ModelReference, out: Path, dtype: torch.dtype) -> dict[str, torch.Size]:
    """Write the merged weights as safetensors shards with their index; returns name -> shape. Raises ExportError, and DeviceError without memory."""
    from safetensors.torch import save_file

    facts = model.facts(voice.base)
    largest = max(tensor.size for tensor in facts.tensors.values())
    _room(
        min(SHARD, facts.parameters * dtype.itemsize) + 12 * largest,
        "Merging holds one file of the result and a tensor at a time",
    )
    shard: dict[str, torch.Tensor] = {}
    files: list[list[str]] = []
    shapes: dict[str, torch.Size] = {}
    held = total = 0

    def write() -> None:
        nonlocal shard, held
        save_file(shard, out / f"part-{len(files)}.safetensors", metadata={"format": "pt"})
        files.append(list(shard))
        shard, held = {}, 0

    for name, weight in weights(voice):
        weight = rounded(weight, dtype).contiguous().clone()
        size = weight.numel() * weight.element_size()
        if shard and held + size > SHARD:
            write()
        shard[name], shapes[name] = weight, weight.shape
        held, total = held + size, total + size
    write()
    _rename(out, files, total)
    return shapes


def rounded(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float32 to the type of the file, to the nearest. Raises ExportError for what float16 cannot hold."""
    if not weight.is_floating_point():
        return weight
    if dtype == torch.float16 and weight.abs().max() > torch.finfo(dtype).max:
        raise ExportError(
            "A weight of this model is too large for float16.",
            "Leave --precision out: the base's own type holds it.",
            "--precision",
        )
    return weight.to(dtype)


def own_type(found: ModelReference) -> torch.dtype:
    """The type of the base's files; bfloat16 where they hold another than programs compute in."""
    named = model.facts(found.base).dtype
    return getattr(torch, named) if named in ("bfloat16", "float16", "float32") else torch.bfloat16


def still_tied(base: Path, names: Iterable[str]) -> bool:
    """Whether head and embedding of a merged model are one table, as its config has to say; names: the merged tensors."""
    facts = model.facts(base)
    return facts.tie_word_embeddings and not any(head in names and head not in facts.tensors for head in _HEADS)


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
    (out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1)
    )
