"""Write a model as one GGUF file: weights as llama.cpp expects them, tokenizer, chat template and end tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch

from studio import model
from studio.errors import ExportError
from studio.export import gguf_families, gguf_template, gguf_tokenizer
from studio.model import ModelFacts
from studio.talk.reference import ModelReference
from studio.talk.stopping import end_tokens
from studio.template import Template
from studio.tokens import Encoder
from studio.worker import gguf_types, llama_cpp
from studio.worker.merge import weights

Settings = gguf.GGUFWriter


def write(
    reference: ModelReference, out: Path, kind: str, template: str, importance: dict[str, numpy.ndarray] | None = None
) -> None:
    """Write `out`. Raises ExportError; gguf_families.refuse checks beforehand.

    kind: one of gguf_types.KINDS. template: Jinja without {% generation %}. importance: of the columns of linear layers
    by name.
    """
    facts = model.facts(reference.base)
    architecture = gguf.MODEL_ARCH[gguf_families.ARCHITECTURES[facts.model_type]]
    names = gguf.get_tensor_name_map(architecture, facts.num_hidden_layers)
    # one tensor in memory at a time
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[architecture], use_temp_file=True)
    rows = facts.vocab_size
    mix = gguf_types.Mix(kind, facts.num_hidden_layers, facts.tie_word_embeddings)
    for name, data in _tensors(reference, facts):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ExportError(f"The tensor {name} has no name in GGUF.", "Export it merged instead.", "model")
        if target == "token_embd.weight":
            rows = data.shape[0]
        _add(writer, target, data.numpy(), mix, (importance or {}).get(name.removesuffix(".weight")))
    for name, factors in _rope_factors(facts).items():
        writer.add_tensor(name, numpy.asarray(factors, numpy.float32))
    _settings(writer, facts, reference.label or reference.name, rows)
    writer.add_file_type(gguf_types.KINDS[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _tokenizer(writer, reference, rows, template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(reference: ModelReference, facts: ModelFacts) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the merged weights in float32 as llama.cpp's graph of the family expects them."""
    kind = facts.model_type
    for name, weight in weights(reference):
        data = weight.float()
        if kind == "gpt2":
            if name.endswith((".attn.bias", ".attn.masked_bias")):
                continue  # masks that old files hold
            if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
                data = data.T.contiguous()
        elif kind.startswith("gemma") and name.endswith("norm.weight"):
            data = data + 1  # transformers multiplies with 1 + weight
        elif kind in ("llama", "mistral") and name.endswith(("q_proj.weight", "k_proj.weight")):
            data = permuted(data, facts.num_attention_heads if ".q_proj." in name else facts.num_key_value_heads)
        yield name, data


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows of q or k from transformers' RoPE layout (halves) to llama.cpp's (pairs)."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def _add(
    writer: Settings, name: str, data: numpy.ndarray, mix: gguf_types.Mix, importance: numpy.ndarray | None
) -> None:
    """Add a tensor: vectors and position embeddings in float32, as llama.cpp requires, matrices in the mix's type."""
    if data.ndim == 1 or name.startswith("position_embd"):
        writer.add_tensor(name, data.astype(numpy.float32))
        return
    kind = mix.of(name, data.shape[-1])
    if kind in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32):
        writer.add_tensor(name, data.astype(numpy.float16 if kind == gguf.GGMLQuantizationType.F16 else numpy.float32))
    elif kind == gguf.GGMLQuantizationType.Q8_0:
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, llama_cpp.quantized(data, kind, importance), raw_dtype=kind)


def _rope_factors(facts: ModelFacts) -> dict[str, list[float]]:
    """The tensors of per-frequency factors: one for Llama 3's scaling, two for LongRoPE."""
    rope = gguf_families.rope(facts)
    if rope["rope_type"] == "longrope":
        return {"rope_factors_long.weight": rope["long_factor"], "rope_factors_short.weight": rope["short_factor"]}
    return {"rope_freqs.weight": llama3_factors(rope, facts.head_dim)} if rope["rope_type"] == "llama3" else {}


def llama3_factors(rope: dict[str, Any], width: int) -> list[float]:
    """The divisor of each frequency (Llama 3.1's rope scaling): 1 for short waves, `factor` for long, else blended."""
    factor, low, high, old = (
        float(rope[key])
        for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    factors = []
    for index in range(0, width, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (index / width)
        smooth = (old / wavelength - low) / (high - low)
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(factor)
        else:
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


def _settings(writer: Settings, facts: ModelFacts, name: str, rows: int) -> None:
    config, rope = facts.text_config, gguf_families.rope(facts)
    writer.add_name(name)
    writer.add_vocab_size(rows)
    writer.add_context_length(facts.max_position_embeddings or 4096)
    writer.add_embedding_length(facts.hidden_size)
    writer.add_block_count(facts.num_hidden_layers)
    writer.add_feed_forward_length(facts.intermediate_size)
    writer.add_head_count(facts.num_attention_heads)
    if facts.model_type == "gpt2":
        writer.add_layer_norm_eps(config.get("layer_norm_epsilon", 1e-5))
        return
    writer.add_head_count_kv(facts.num_key_value_heads)
    writer.add_key_length(facts.head_dim)
    writer.add_value_length(facts.head_dim)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-5 if facts.model_type == "phi3" else 1e-6))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_rope_dimension_count(int(facts.head_dim * rope.get("partial_rotary_factor", 1.0)))
    _rope_scaling(writer, facts, rope)
    if facts.model_type in gguf_families.PERIOD:
        writer.add_sliding_window(config.get("sliding_window") or 4096)
    if facts.model_type == "gemma3_text":
        writer.add_rope_freq_base_swa(float(rope["rope_theta_local"]))
    for key, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if facts.model_type.startswith("gemma") and config.get(key):
            add(float(config[key]))


def _rope_scaling(writer: Settings, facts: ModelFacts, rope: dict[str, Any]) -> None:
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(
            int(rope.get("original_max_position_embeddings") or facts.max_position_embeddings)
        )
    if kind == "longrope" or facts.model_type == "phi3":
        old = int(rope.get("original_max_position_embeddings") or facts.max_position_embeddings)
        writer.add_rope_scaling_orig_ctx_len(old)
    if kind == "longrope":
        stretch = facts.max_position_embeddings / old
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(old)) if stretch > 1 else 1.0)


def _tokenizer(writer: Settings, reference: ModelReference, size: int, template: str) -> None:
    """Write the tokens with their types, and the special ones; the end token is the one trained to end a turn."""
    file = reference.tokenizer / "tokenizer.json"
    tokenizer = Encoder(reference.tokenizer, reference.template).tokenizer
    vocabulary = gguf_tokenizer.vocabulary(
        json.loads(file.read_text(encoding="utf-8")), tokenizer.get_added_tokens_decoder(), size
    )
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    ends = end_tokens(reference)
    if not ends:
        message = "No single token ends a turn in this template, so a GGUF of it would never stop."
        hint = "Train with a template that ends turns with one special token, such as chatml."
        raise ExportError(message, hint, "data.template")
    writer.add_eos_token_id(ends[0])
    writer.add_eot_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eom_token_id(ends[1])  # llama.cpp stops there too; further ones it knows by their usual names
    written = Template("", template, reference.template.special)
    writer.add_chat_template(gguf_template.adapted(written, tokenizer, vocabulary.tokens[ends[0]]).text)
    ids, special = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}, reference.template.special
    for key, add in (
        ("bos_token", writer.add_bos_token_id),
        ("pad_token", writer.add_pad_token_id),
        ("unk_token", writer.add_unk_token_id),
    ):
        if special.get(key) in ids:
            add(ids[special[key]])
    writer.add_add_bos_token(False)  # where one is wanted the template writes it
    writer.add_add_eos_token(False)
    if vocabulary.model == "llama":
        writer.add_add_space_prefix(vocabulary.space_prefix)
