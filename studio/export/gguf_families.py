"""Which models a GGUF can hold as llama.cpp computes them, and what llama.cpp does otherwise. No torch, nothing read but config and tokenizer.

The list holds families whose answers were compared with llama.cpp's own, token for token (tests/worker/test_gguf_llama_cpp.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
PERIOD = {
    "gemma2": 2,
    "gemma3_text": 6,
}  # of so many layers the last one looks at everything, the others through a window
LARGEST = {"gemma2": 46, "gemma3_text": 62}  # layers of the one size whose queries llama.cpp scales by hidden / heads
ELSEWHERE = "Export it merged; llama.cpp's convert_hf_to_gguf.py reads that folder."


def refuse(facts: ModelFacts, tokenizer: Path, untied: bool = False) -> None:
    """Raise ExportError for a model that cannot be written, before anything is read or merged. untied: its head was trained apart."""
    kind, config = facts.model_type, facts.text_config
    if kind not in ARCHITECTURES:
        raise ExportError(
            f"GGUF export knows {', '.join(ARCHITECTURES)} models; this one is {kind}.", ELSEWHERE, "model"
        )
    turned = rope(facts)["rope_type"]
    if kind not in ROPES.get(turned, ()):
        raise ExportError(
            f"GGUF export does not write the {turned} stretching of positions of {kind} models.", ELSEWHERE, "model"
        )
    odd = _odd(facts, config) or ("has a head of its own" if untied and kind in ("gemma", "gemma2") else "")
    if odd:
        raise ExportError(f"llama.cpp cannot compute this {kind} model: it {odd}.", "Export it merged.", "model")
    gguf_tokenizer.refuse(json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8")))


def _odd(facts: ModelFacts, config: dict[str, Any]) -> str:
    """What llama.cpp takes for granted of a family and this model does otherwise, or ""."""
    kind = facts.model_type
    scale = config.get("query_pre_attn_scalar")
    if kind in PERIOD and scale is not None:
        usual = (
            facts.hidden_size // facts.num_attention_heads
            if facts.num_hidden_layers == LARGEST[kind]
            else facts.head_dim
        )
        if scale != usual:
            return f"scales its queries by {scale}, where {usual} is expected"
    layers = config.get("layer_types")
    if kind in PERIOD and layers:
        usual = [
            "sliding_attention" if (place + 1) % PERIOD[kind] else "full_attention"
            for place in range(facts.num_hidden_layers)
        ]
        if layers != usual:
            return f"has its windows in other layers than all but each {PERIOD[kind]}th"
    if kind in ("llama", "mistral") and (config.get("attention_bias") or config.get("mlp_bias")):
        return "has biases in its layers"
    return ""


def caution(facts: ModelFacts) -> str:
    """A sentence where llama.cpp answers as trained only up to some length, or ""."""
    config = facts.text_config
    window, longest = config.get("sliding_window"), facts.max_position_embeddings or 0
    looks = facts.model_type in ("mistral", "phi3") or config.get("use_sliding_window")
    if window and looks and window < longest:
        return f"llama.cpp computes this model without its sliding window: beyond {window} tokens its answers differ from the trained model's."
    return ""


def rope(facts: ModelFacts) -> dict[str, Any]:
    """The rope parameters in transformers 5's words, whatever version wrote the config; of layers that look at everything where kinds differ.

    rope_theta_local: of the others.
    """
    config = facts.text_config
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    local = config.get("rope_local_base_freq")
    if "full_attention" in found:
        local = (found.get("sliding_attention") or {}).get("rope_theta", local)
        found = found["full_attention"] or {}
    usual = 1_000_000.0 if facts.model_type == "gemma3_text" else 10_000.0
    outside = {
        key: config[key]
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if config.get(key) is not None
    }
    kind = found.get("rope_type", found.get("type")) or "default"
    inside = {key: value for key, value in found.items() if value is not None}
    made = {"rope_theta": usual, **outside, **inside, "rope_type": "longrope" if kind == "su" else kind}
    return {**made, "rope_theta_local": local or 10_000.0} if facts.model_type == "gemma3_text" else made
