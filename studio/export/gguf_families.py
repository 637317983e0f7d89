"""The model families that llama.cpp computes as transformers does, checked by config and tokenizer alone, without
torch.

A family is listed once its answers agree with llama.cpp's token for token (tests/worker/test_gguf_llama_cpp.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.base import families
from studio.errors import ExportError
from studio.export import gguf_tokenizer
from studio.model import ModelFacts

# transformers' model_type -> llama.cpp's architecture
ARCHITECTURES = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "gemma": "GEMMA",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
    "phi3": "PHI3",
    "gpt2": "GPT2",
}
ROPES = {
    "default": tuple(ARCHITECTURES),
    "llama3": ("llama",),
    "linear": ("llama", "mistral", "qwen2", "qwen3", "gemma3_text"),
    "yarn": ("llama", "mistral", "qwen2", "qwen3"),
    "longrope": ("phi3",),
}
PERIOD = {"gemma2": 2, "gemma3_text": 6}  # every nth layer has full attention, the others a sliding window
SILU = ("llama", "mistral", "qwen2", "qwen3", "phi3")  # the activation of their feed-forward; gelu in the others
LARGEST = {"gemma2": 46, "gemma3_text": 62}  # layers of the one size whose queries llama.cpp scales by hidden / heads
ELSEWHERE = "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder."


def refuse(facts: ModelFacts, tokenizer: Path) -> None:
    """Raise ExportError for a model that cannot be written."""
    kind, config = facts.model_type, facts.text_config
    if kind not in ARCHITECTURES:
        raise ExportError(
            f"GGUF export knows {', '.join(ARCHITECTURES)} models; this one is {kind}.", ELSEWHERE, "model"
        )
    rope_type = rope(facts)["rope_type"]
    if kind not in ROPES.get(rope_type, ()):
        raise ExportError(
            f"GGUF export does not write the {rope_type} stretching of positions of {kind} models.", ELSEWHERE, "model"
        )
    difference = _difference(facts, config)
    if difference:
        raise ExportError(f"llama.cpp cannot compute this {kind} model: it {difference}.", "Export it merged.", "model")
    gguf_tokenizer.refuse(json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8")))


def _difference(facts: ModelFacts, config: dict[str, Any]) -> str:
    """How a model differs from what llama.cpp assumes of its family, or ""."""
    kind = facts.model_type
    scale = config.get("query_pre_attn_scalar")
    if kind in PERIOD and scale is not None:
        expected = (
            facts.hidden_size // facts.num_attention_heads
            if facts.num_hidden_layers == LARGEST[kind]
            else facts.head_dim
        )
        if scale != expected:
            return f"scales its queries by {scale}, where {expected} is expected"
    layer_types = config.get("layer_types")
    if kind in PERIOD and layer_types:
        full = [(layer + 1) % PERIOD[kind] == 0 for layer in range(facts.num_hidden_layers)]
        if layer_types != ["full_attention" if is_full else "sliding_attention" for is_full in full]:
            return f"has its windows in other layers than all but each {PERIOD[kind]}th"
    if kind not in ("qwen2", "gpt2") and (config.get("attention_bias") or config.get("mlp_bias")):
        return "has biases in its layers"
    usual = "silu swish" if kind in SILU else "gelu gelu_new gelu_fast gelu_pytorch_tanh"
    for key in ("hidden_act", "hidden_activation", "activation_function"):
        if config.get(key, "gelu_new" if usual.startswith("gelu") else "silu") not in (None, *usual.split()):
            return f"computes its feed-forward with {config[key]}"
    for key, expected in (("scale_attn_by_inverse_layer_idx", False), ("scale_attn_weights", True)):
        if kind == "gpt2" and config.get(key, expected) != expected:
            return f"has {key} {config[key]}"
    return ""


def caution(facts: ModelFacts, tokenizer: Path) -> str:
    """A warning where llama.cpp agrees with the trained model only on some texts, else ""."""
    config, found = facts.text_config, []
    window, longest = config.get("sliding_window"), facts.max_position_embeddings or 0
    has_window = facts.model_type in ("mistral", "phi3") or config.get("use_sliding_window")
    if window and has_window and window < longest:
        found.append(
            f"llama.cpp computes this model without its sliding window: beyond {window} tokens its answers differ from "
            "the trained model's."
        )
    if switch := longrope_switch(facts):
        found.append(
            f"llama.cpp computes every text as a long one where its context (-c) is larger than {switch} "
            "tokens: keep to that, or short texts have other answers than the trained model's."
        )
    words = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    if token := gguf_tokenizer.cut_otherwise(words):
        found.append(
            f"llama.cpp cuts some words into other tokens than this model's tokenizer does, such as {token!r}."
        )
    if gguf_tokenizer.composes(words):
        found.append(
            "This model's tokenizer joins letters with their accents first (NFC), and llama.cpp does not: a text in "
            "which they stand apart has other tokens there."
        )
    return " ".join(found)


def longrope_switch(facts: ModelFacts) -> int | None:
    """Tokens of context beyond which llama.cpp takes LongRoPE's factors for long texts; None for other stretching."""
    settings = rope(facts)
    if settings["rope_type"] != "longrope":
        return None
    return int(settings.get("original_max_position_embeddings") or facts.max_position_embeddings or 4096)


def rope(facts: ModelFacts) -> dict[str, Any]:
    """The rope parameters under transformers 5's names, whatever version wrote the config.

    Where layer types differ they are those of full attention; rope_theta_local is the sliding layers' theta.
    """
    config = facts.text_config
    parameters = families.rope_parameters(config)
    local = config.get("rope_local_base_freq")
    if "full_attention" in parameters:
        local = (parameters.get("sliding_attention") or {}).get("rope_theta", local)
        parameters = parameters["full_attention"] or {}
    usual = 1_000_000.0 if facts.model_type == "gemma3_text" else 10_000.0
    outside = {
        key: config[key]
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if config.get(key) is not None
    }
    kind = parameters.get("rope_type", parameters.get("type")) or "default"
    inside = {key: value for key, value in parameters.items() if value is not None}
    merged = {"rope_theta": usual, **outside, **inside, "rope_type": "longrope" if kind == "su" else kind}
    return {**merged, "rope_theta_local": local or 10_000.0} if facts.model_type == "gemma3_text" else merged
