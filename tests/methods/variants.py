"""Orders that set every knob of every method at least once to something else than its default (test_life)."""

from __future__ import annotations

from typing import Any

from studio.config import build
from studio.method import Method

VARIANTS: list[dict[str, Any]] = [
    {"name": "lora"},
    {"name": "lora", "rank": 4},
    {"name": "lora", "alpha": 8},
    {"name": "lora", "dropout": 0.5},
    {"name": "lora", "target_modules": "q-v"},
    {"name": "lora", "target_modules": "attention"},
    {"name": "lora", "target_modules": "v_proj, down_proj"},
    {"name": "lora", "rslora": True},
    {"name": "lora", "dora": True},
    {"name": "lora", "init": "gaussian"},
    {"name": "lora", "init": "pissa"},
    {"name": "lora", "init": "olora"},
    {"name": "lora", "init": "eva"},
    {"name": "lora", "plus_ratio": 16},
    {"name": "lora", "modules_to_save": ["lm_head"]},
    {"name": "lora", "modules_to_save": ["embed_tokens"]},
    {"name": "lora", "modules_to_save": ["norm"]},
    {"name": "lora", "init": "pissa", "rslora": True},
    {"name": "full"},
    {"name": "full", "last_layers": 1},
    {"name": "full", "freeze_embeddings": True},
    {"name": "qlora"},
    {"name": "qlora", "quantization": "fp4"},
    {"name": "qlora", "quantization": "int8"},
    {"name": "qlora", "double_quant": False},
    {"name": "qlora", "compute": "bf16"},
    {"name": "qlora", "init": "eva"},
    {"name": "qlora", "dora": True},
    {"name": "adapter"},
    {"name": "adapter", "placement": "pfeiffer"},
    {"name": "adapter", "size": 8},
    {"name": "adapter", "activation": "relu"},
    {"name": "adapter", "activation": "tanh"},
    {"name": "adapter", "activation": "silu"},
    {"name": "adapter", "residual": False},
    {"name": "adapter", "init": "near"},
    {"name": "adapter", "dropout": 0.5},
    {"name": "adapter", "quantization": "nf4"},
    {"name": "adapter", "quantization": "int8"},
    {"name": "prefix"},
    {"name": "prefix", "virtual_tokens": 5},
    {"name": "prefix", "projection": True},
    {"name": "prefix", "projection": True, "hidden_size": 24},
    {"name": "prefix", "init": "zero"},
    {"name": "prefix", "init": "random"},
    {"name": "prefix", "text": "yes or no"},
    {"name": "p_tuning"},
    {"name": "p_tuning", "virtual_tokens": 5},
    {"name": "p_tuning", "encoder": "lstm"},
    {"name": "p_tuning", "hidden_size": 16},
    {"name": "p_tuning", "encoder": "lstm", "layers": 3},
    {"name": "p_tuning", "encoder": "lstm", "dropout": 0.5},
    {"name": "prompt"},
    {"name": "prompt", "virtual_tokens": 5},
    {"name": "prompt", "init": "words"},
    {"name": "prompt", "init": "random"},
    {"name": "prompt", "text": "yes or no"},
    {"name": "ia3"},
    {"name": "ia3", "target_modules": "q_proj"},
    {"name": "ia3", "feedforward_modules": "none"},
    {"name": "ia3", "feedforward_modules": "up_proj"},
]


def made(variant: dict[str, Any]) -> Method:
    return build({"data": {"train": "sample"}, "method": variant}).method


def title(variant: dict[str, Any]) -> str:
    return variant["name"] + "".join(f" {key}={value}" for key, value in variant.items() if key != "name")
