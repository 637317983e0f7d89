"""Merging: W' = W + s·B·A in float32, rounded once; other adapters than plain LoRA through the whole model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.core_model_loading import revert_weight_conversion

from studio import device, loading, model, token_rows
from studio.base.shards import weight_files
from studio.base.tensors import TABLES
from studio.errors import DeviceError, ExportError
from studio.methods import METHODS
from studio.methods.lora import BEYOND_PLAIN
from studio.talk.reference import ModelReference
from studio.token_rows import DELTA_SUFFIX

SHARD = 4_000_000_000  # bytes of one file of a merged model
Weights = Iterator[tuple[str, torch.Tensor]]


def weights(reference: ModelReference) -> Weights:
    """Yield every stored tensor of the merged model in float32. Raises ExportError where a method cannot merge."""
    if reference.result is None and not model.facts(reference.base).quantizer:
        yield from _stored_tensors(reference.base)
    elif reference.result is None:
        yield from _whole_model(reference, _load(reference))
    elif reference.standalone and not reference.checkpoint:
        yield from _stored_tensors(reference.result)
    elif reference.standalone:
        yield from _merge_model(reference)
    elif not reference.method.mergeable:
        message = f"{reference.method.label} cannot be merged. {reference.method.cannot_merge}"
        hint = "Export the adapter instead."
        raise ExportError(message, hint, "method.name")
    elif (plain := _plain_lora(reference.result, reference.base)) is not None:
        yield from _merge_lora(reference, *plain)
    else:
        yield from _merge_model(reference)


def _stored_tensors(folder: Path, changed: Collection[str] = ()) -> Weights:
    """Yield what the files hold, without a tied head that they hold a second time. changed: names to yield for all."""
    second = _second_head(folder)
    for file in weight_files(folder):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a dict
                if name != second or name in changed:
                    yield name, _widened(stored.get_tensor(name))


def _second_head(folder: Path) -> str:
    """The name of a tied head that is stored although it is the embedding's table; "" where there is none."""
    facts = model.facts(folder)
    head = next((name for name in _HEADS if name in facts.tensors), "")
    if not (head and facts.tie_word_embeddings and facts.tables()):
        return ""
    names, pair = (head, facts.tables()[0]), []
    for file in weight_files(folder):
        with safe_open(file, "pt") as stored:
            pair += [stored.get_tensor(name) for name in names if name in stored.keys()]  # noqa: SIM118
    return head if torch.equal(*pair) else ""


def _widened(weight: torch.Tensor) -> torch.Tensor:
    return weight.float() if weight.is_floating_point() else weight


def _plain_lora(folder: Path, base: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """The adapter's config and matrices if it has only A and B matrices and token rows of stored weights, else None."""
    if not (folder / "adapter_config.json").is_file():
        return None
    config = json.loads((folder / "adapter_config.json").read_text())
    if (
        config.get("peft_type") != "LORA"
        or config.get("bias", "none") != "none"
        or loading.takes_out_of_base(config)
        or model.facts(base).quantizer
        or any(config.get(key) for key in ("fan_in_fan_out", *BEYOND_PLAIN))
    ):
        return None
    with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
        matrices = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    names = {name for file in weight_files(base) for name in safe_open(file, "pt").keys()}  # noqa: SIM118
    pattern = re.compile(rf"base_model\.model\.(.+)(?:\.lora_[AB]\.weight|{re.escape(DELTA_SUFFIX)})")
    targets = [pattern.fullmatch(name) for name in matrices]
    plain = all(target and target[1] + ".weight" in names for target in targets)
    return (config, matrices) if plain else None


def _merge_lora(reference: ModelReference, config: dict[str, Any], matrices: dict[str, torch.Tensor]) -> Weights:
    """Merge with s = alpha / r (LoRA, arXiv 2106.09685, section 4.1), alpha / √r with rsLoRA (arXiv 2312.03732)."""
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    facts, row_indices = model.facts(reference.base), token_rows.saved_indices(reference.result)
    tables = {name: f"base_model.model.{name.removesuffix('.weight')}" for name in facts.tables()}
    on_heads = [name for name in _HEADS if f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight" in matrices]
    for name, weight in _stored_tensors(reference.base, on_heads):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in matrices:
            weight = weight + scale * (matrices[f"{stem}.lora_B.weight"] @ matrices[f"{stem}.lora_A.weight"])
        table = tables.get(name, stem)
        values = matrices.get(table + DELTA_SUFFIX) if row_indices else None
        if values is not None:
            # peft names tables by the end of their name, and the embedding by ""
            named = (rows for end, rows in row_indices.items() if end and table.endswith(end))
            weight = token_rows.overwrite_rows(weight, next(named, row_indices.get("", [])), values)
        yield name, weight


def _merge_model(reference: ModelReference) -> Weights:
    """Load the base in float32, attach the result and merge with peft.

    A tied head gets its own copy first, since an adapter may change head or embedding alone. If both are still equal,
    one is yielded.
    """
    base = token_rows.add_rows(_load(reference), reference.added_tokens)
    if reference.method.adapter and not _only_rows(reference):
        base = untied(base)
    if reference.checkpoint:
        wrapped = reference.method.wrap(base)
        reference.method.load_checkpoint(wrapped, reference.result)
        merged = reference.method.merge(wrapped) if reference.method.adapter else wrapped
    else:
        merged = reference.method.merge(reference.method.attach(base, reference.result))
    yield from _whole_model(reference, merged)


def _load(reference: ModelReference) -> Any:
    """The base in float32; a quantized one with its weights unpacked, as training multiplied with them."""
    facts = model.facts(reference.base)
    _require_memory(
        4 * (facts.parameters + facts.vocab_size * facts.hidden_size),
        "To merge this kind of adapter the whole model is opened in float32",
    )
    base = METHODS["full"]().load(reference.base, torch.float32)
    if facts.quantizer:
        base = base.dequantize(torch.float32) if getattr(base, "is_quantized", False) else base
        base._weight_conversions = None  # the quantizer's own, which cannot be turned round
    return base


def _whole_model(reference: ModelReference, whole: Any) -> Weights:
    """Yield a loaded model's tensors under the names that its files have (of experts, one tensor each)."""
    layers = model.facts(reference.base).num_hidden_layers
    if (count := whole.config.get_text_config().num_hidden_layers) != layers:
        message = f"This adapter repeats layers: the merged model would have {count}, and its base has {layers}."
        hint = "Export the adapter instead."
        raise ExportError(message, hint, "method.name")
    head, table = whole.get_output_embeddings(), whole.get_input_embeddings()
    same = model.facts(reference.base).tie_word_embeddings and torch.equal(head.weight, table.weight)
    for name, weight in revert_weight_conversion(whole, whole.state_dict()).items():
        if not name.endswith("inv_freq") and not (same and name in _HEADS):
            yield name, _widened(weight.detach())


def _only_rows(reference: ModelReference) -> bool:
    """Whether only rows of the token tables are trained; a tied head shares those."""
    if not reference.checkpoint:
        return bool(token_rows.saved_indices(reference.result))
    modules = getattr(reference.method, "modules_to_save", ())
    full_table = any(TABLES.search(f"{module}.weight") for module in modules)
    return bool(reference.added_tokens.rows) and not full_table


_HEADS = ("lm_head.weight", "embed_out.weight")


def untied(whole: Any) -> Any:
    """The model with a head of its own where it shared the embedding's table."""
    head, table = whole.get_output_embeddings(), whole.get_input_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = torch.nn.Parameter(table.weight.detach().clone(), requires_grad=False)
        whole.config.get_text_config().tie_word_embeddings = whole.config.tie_word_embeddings = False
    return whole


def _require_memory(need: int, what: str) -> None:
    """Raise DeviceError where fewer than `need` bytes of RAM are free."""
    free = device.cpu().free
    if need > free:
        message = f"{what}: {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free."
        hint = "End the chat and trainings first, close other programs, or export the adapter: that needs no merge."
        raise DeviceError(message, hint, "memory")


def merge(
    reference: ModelReference, out: Path, dtype: torch.dtype, in_float32: Collection[str] = ()
) -> dict[str, torch.Size]:
    """Write the merged weights as safetensors shards with their index; returns name -> shape.

    in_float32: tensors that stay in float32.

    Raises ExportError, and DeviceError where there is too little memory.
    """
    from safetensors.torch import save_file

    facts = model.facts(reference.base)
    largest = max(tensor.size for tensor in facts.tensors.values())
    _require_memory(
        min(SHARD, facts.parameters * dtype.itemsize) + 12 * largest,
        "Merging holds one file of the result and a tensor at a time",
    )
    shard: dict[str, torch.Tensor] = {}
    files: list[list[str]] = []
    shapes: dict[str, torch.Size] = {}
    shard_size = total = 0

    def write() -> None:
        nonlocal shard, shard_size
        save_file(shard, out / f"part-{len(files)}.safetensors", metadata={"format": "pt"})
        files.append(list(shard))
        shard, shard_size = {}, 0

    for name, weight in weights(reference):
        weight = rounded(weight, torch.float32 if name in in_float32 else dtype).contiguous().clone()
        if shard and shard_size + weight.nbytes > SHARD:
            write()
        shard[name], shapes[name] = weight, weight.shape
        shard_size += weight.nbytes
        total += weight.nbytes
    write()
    _rename(out, files, total)
    return shapes


def rounded(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round a float32 weight to the dtype of the file. Raises ExportError for what float16 cannot hold."""
    if not weight.is_floating_point():
        return weight
    if dtype == torch.float16 and weight.abs().max() > torch.finfo(dtype).max:
        hint = "Leave --precision out: the base's own type holds it."
        raise ExportError("A weight of this model is too large for float16.", hint, "--precision")
    return weight.to(dtype)


def base_dtype(found: ModelReference) -> torch.dtype:
    """The dtype of the base's files; float32 for float64, bfloat16 where models are not computed in theirs."""
    named = model.facts(found.base).stored_dtype.replace("float64", "float32")
    return getattr(torch, named) if named in ("bfloat16", "float16", "float32") else torch.bfloat16


def still_tied(base: Path, names: Iterable[str]) -> bool:
    """Whether head and embedding of a merged model, given its tensors' names, are one table."""
    return model.facts(base).tie_word_embeddings and not any(head in names for head in _HEADS)


def _rename(out: Path, files: list[list[str]], total: int) -> None:
    """Give the files the names that transformers looks for: model.safetensors, or numbered shards with an index."""
    if len(files) == 1:
        (out / "part-0.safetensors").rename(out / "model.safetensors")
        return
    weight_map = {}
    for index, names in enumerate(files):
        target = f"model-{index + 1:05}-of-{len(files):05}.safetensors"
        (out / f"part-{index}.safetensors").rename(out / target)
        weight_map |= dict.fromkeys(names, target)
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1)
    (out / "model.safetensors.index.json").write_text(text)
