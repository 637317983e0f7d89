"""Tiny random models of several architectures, saved as folders with the tiny tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import tiny

SAME = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SAME, "intermediate_size": 64, "num_key_value_heads": 2}
OLD = {
    "vocab_size": 400,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**GROUPED, "tie_word_embeddings": True},
    "mistral": {**GROUPED, "tie_word_embeddings": False},
    "qwen2": {**GROUPED, "tie_word_embeddings": True},  # biases on query, key and value
    "qwen3": {**GROUPED, "head_dim": 16, "tie_word_embeddings": True},  # heads wider than hidden / heads
    "gemma": {**GROUPED, "head_dim": 16},
    "gemma2": {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8},
    "gemma3_text": {
        **GROUPED,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 8,
        "num_hidden_layers": 7,
    },  # the sixth sees all
    "phi3": {**GROUPED, "tie_word_embeddings": False},  # query, key and value in one matrix; gate and up in one
    "gpt2": OLD,  # Conv1D, names that occur twice (c_proj)
    "gpt_neox": {**SAME, "intermediate_size": 64, "tie_word_embeddings": False},  # its head is called embed_out
    "mixtral": {
        **GROUPED,
        "num_local_experts": 2,
        "tie_word_embeddings": False,
    },  # experts: no linears in the feed-forward
}


def write(folder: Path, kind: str) -> Path:
    """The folder of a tiny random model of one architecture, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind])).float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)  # so that answers differ from one another
    model.save_pretrained(folder, safe_serialization=True)
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|im_start|>",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
    return folder
