"""One GGUF file from a voice: weights in the names and order llama.cpp expects, tokenizer, chat template and stop token inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch

from studio import model
from studio.errors import ExportError
from studio.model import ModelFacts
from studio.talk.voice import Voice
from studio.worker.merge import weights

# transformers' model_type -> llama.cpp's architecture. Others hold tensors or settings that this file does not write.
ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "mistral": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
TYPES = {"f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16), "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)}
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # llama.cpp's token types

# How text is cut before BPE: the patterns that llama.cpp knows, by its name for them.
_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERNS = {_SPLIT % "{1,3}": "llama-bpe", _SPLIT % "": "qwen2"}


def pre(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a tokenizer.json cuts text before BPE; None where it has none that is known here."""
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        return PATTERNS.get((steps[0].get("pattern") or {}).get("Regex"))
    if not steps[-1].get("use_regex", True):
        return None
    digits = kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits")
    return "smollm" if digits else "gpt-2" if kinds == ["ByteLevel"] else None


def refuse(facts: ModelFacts, folder: Path) -> None:
    """Raise ExportError for a model that cannot be written, before anything is read or merged."""
    if facts.model_type not in ARCHITECTURES:
        raise ExportError(f"GGUF export knows {', '.join(ARCHITECTURES)} models; this one is {facts.model_type}.",
                          "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder.", "model")
    rope = _rope(facts)
    if rope.get("rope_type", "default") != "default":
        raise ExportError(f"GGUF export does not write the {rope['rope_type']} stretching of positions.",
                          "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder.", "model")
    kind = json.loads((folder / "tokenizer.json").read_text())
    if kind["model"].get("type") != "BPE" or kind["model"].get("byte_fallback") or pre(kind) is None:
        raise ExportError("GGUF export writes byte-level BPE tokenizers that cut text as GPT-2's, SmolLM's, Llama 3's or Qwen's; this one is another.",
                          "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder.", "model")


def write(voice: Voice, out: Path, kind: str, template: str, prepared: dict[str, torch.Tensor] | None = None) -> None:
    """out: the .gguf file. kind: f16 or q8_0. template: Jinja without {% generation %}. prepared: weights by name as q8_0 holds them, in bytes.

    A table that is embedding and head at once stays 16-bit in q8_0 too, as llama.cpp's --output-tensor-type can have it: on the starter two
    more of 20 answers agree with it, for 25 MB of 171. Raises ExportError; see refuse for what cannot be written at all.
    """
    facts = model.facts(voice.base)
    architecture = ARCHITECTURES[facts.model_type]
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[architecture], use_temp_file=True)  # one tensor in memory at a time
    _settings(writer, facts, voice.label or voice.name)
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _tokenizer(writer, voice, facts.vocabulary)
    writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(architecture, facts.layers)
    turned = architecture == gguf.MODEL_ARCH.LLAMA
    for name, weight in weights(voice):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ExportError(f"The tensor {name} has no name in GGUF.", "Export it merged instead.", "model")
        ready = (prepared or {}).get(name)
        data = weight.float() if ready is None else ready
        if turned and name.endswith(("q_proj.weight", "q_proj.bias")):
            data = permuted(data, facts.heads)
        elif turned and name.endswith(("k_proj.weight", "k_proj.bias")):
            data = permuted(data, facts.kv_heads)
        _add(writer, target, data.numpy(), TYPES["f16" if facts.tied and target == "token_embd.weight" else kind][0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k from transformers' order (halves) to llama.cpp's (pairs), which is how each turns positions (RoPE)."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _add(writer: gguf.GGUFWriter, name: str, data: numpy.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    """Vectors stay float32, as llama.cpp wants them; tables whose rows do not fill blocks of 32 stay 16-bit, bytes are as they shall stand.

    8 bits are rounded to the nearest: by chance, as a merge into bf16 does it, doubled the error of the logits on the starter.
    """
    if data.dtype == numpy.uint8:
        writer.add_tensor(name, data, raw_dtype=kind)
    elif data.ndim == 1:
        writer.add_tensor(name, data.astype(numpy.float32))
    elif kind == gguf.GGMLQuantizationType.F16 or data.shape[-1] % 32:
        writer.add_tensor(name, data.astype(numpy.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)


def _rope(facts: ModelFacts) -> dict[str, Any]:
    config = facts.config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), **rope, "rope_type": rope.get("rope_type", rope.get("type", "default"))}


def _settings(writer: gguf.GGUFWriter, facts: ModelFacts, name: str) -> None:
    writer.add_name(name)
    writer.add_vocab_size(facts.vocabulary)
    writer.add_context_length(facts.max_length or 4096)
    writer.add_embedding_length(facts.hidden)
    writer.add_block_count(facts.layers)
    writer.add_feed_forward_length(facts.intermediate)
    writer.add_head_count(facts.heads)
    writer.add_head_count_kv(facts.kv_heads)
    writer.add_key_length(facts.head_dim)
    writer.add_value_length(facts.head_dim)
    writer.add_layer_norm_rms_eps(facts.config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(float(_rope(facts)["rope_theta"]))
    writer.add_rope_dimension_count(facts.head_dim)


def _tokenizer(writer: gguf.GGUFWriter, voice: Voice, size: int) -> None:
    """Tokens with their kinds, merges, and the tokens that begin and end: the end is the template's end of turn."""
    kind = json.loads((voice.base / "tokenizer.json").read_text())
    names = [f"[PAD{place}]" for place in range(size)]
    types = [UNUSED] * size
    for token, place in kind["model"]["vocab"].items():
        names[place], types[place] = token, NORMAL
    for added in kind.get("added_tokens", []):
        names[added["id"]], types[added["id"]] = added["content"], CONTROL if added.get("special") else USER
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre(kind))
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in kind["model"]["merges"]])
    place = {name: number for number, name in enumerate(names)}
    special = voice.template.special
    end = next((place[stop] for stop in (*voice.stop, special.get("eos_token", "")) if stop in place), None)
    if end is None:
        raise ExportError("No single token ends a turn in this template, so a GGUF of it would never stop.",
                          "Train with a template that ends turns with one special token, such as chatml.", "data.template")
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    for key, add in (("bos_token", writer.add_bos_token_id), ("pad_token", writer.add_pad_token_id), ("unk_token", writer.add_unk_token_id)):
        if special.get(key) in place:
            add(place[special[key]])
    writer.add_add_bos_token(False)  # where one is wanted the template writes it
