"""The config of the model in a GGUF file: what transformers reads of it, and what it leaves out and llama.cpp goes by.

Left out are Gemma's query scale, heads of a width of their own, a head that is turned in part, every stretching of
positions (Llama 3.1 and later, linear, YaRN, LongRoPE), and how many positions a GPT-2 has.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
from gguf import GGUFReader
from transformers import AutoConfig

from studio.export.gguf_families import LARGEST
from studio.worker.gguf_file import llama3_factors


def read(file: Path) -> Any:
    """The config in a GGUF file. Raises ValueError for an architecture or stretching unknown to transformers."""
    config, reader = AutoConfig.from_pretrained(file.parent, gguf_file=file.name), GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()

    def value(key: str) -> Any:
        field = reader.fields.get(f"{architecture}.{key}")
        return field.contents() if field else None

    width = value("attention.key_length") or config.hidden_size // config.num_attention_heads
    if hasattr(config, "head_dim"):
        config.head_dim = width
    if config.model_type in LARGEST:
        largest = config.num_hidden_layers == LARGEST[config.model_type]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if largest else width
    if config.model_type == "gpt2":
        config.n_positions, config.n_inner = value("context_length"), value("feed_forward_length")
    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        return config
    factors = {
        tensor.name: numpy.asarray(tensor.data, float).tolist() for tensor in reader.tensors if "rope_f" in tensor.name
    }
    whole = rope.get("full_attention", rope)
    whole |= _stretching(value, factors, whole["rope_theta"])
    if value("rope.dimension_count") not in (None, width):
        whole["partial_rotary_factor"] = value("rope.dimension_count") / width
    if "original_max_position_embeddings" in whole and hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = whole["original_max_position_embeddings"]
    return config


def _stretching(value: Any, factors: dict[str, list[float]], theta: float) -> dict[str, Any]:
    """The rope parameters by which positions are stretched, {} where they are not."""
    old, kind = value("rope.scaling.original_context_length"), value("rope.scaling.type")
    if "rope_freqs.weight" in factors:
        return _llama3(factors["rope_freqs.weight"], theta)
    if "rope_factors_long.weight" in factors:
        short, long = factors["rope_factors_short.weight"], factors["rope_factors_long.weight"]
        own = {"short_factor": short, "long_factor": long, "original_max_position_embeddings": old}
        return {"rope_type": "longrope", **own}
    if kind in ("linear", "yarn"):
        own = {"original_max_position_embeddings": old} if kind == "yarn" and old else {}
        return {"rope_type": kind, "factor": value("rope.scaling.factor"), **own}
    return {}


def _llama3(factors: list[float], theta: float) -> dict[str, Any]:
    """Llama 3's parameters from its divisor of each frequency, which GGUF holds in their place (see llama3_factors)."""
    factor, old = max(factors), 8192.0
    for index, divisor in enumerate(factors):
        if 1 < divisor < factor:  # blended by smooth, which the length decides
            smooth = (1 / divisor - 1 / factor) / (1 - 1 / factor)
            old = 2 * math.pi * theta ** (index / len(factors)) * (1 + 3 * smooth)
            break
    found = {"rope_theta": theta, "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found |= {"rope_type": "llama3", "original_max_position_embeddings": round(old)}
    if not numpy.allclose(llama3_factors(found, 2 * len(factors)), factors, rtol=1e-3):
        raise ValueError("its positions are stretched by factors that are not Llama 3's")
    return found
