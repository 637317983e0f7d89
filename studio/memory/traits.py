"""How a family's decoder layer computes, where its tensors' names and shapes do not tell.

FAMILIES has a line for each family, as its modeling file in transformers writes the layer; a key of config.json comes
first. tests/test_estimate_trace.py compares them with real steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from studio.base import families
from studio.model import ModelFacts


class Traits(NamedTuple):
    """Traits of one family's layer; the defaults are Llama's."""

    parallel: bool = False  # attention and mlp read the same input: x + attention(norm(x)) + mlp(norm(x))
    shared_norm: bool = False  # of a parallel layer: one norm for both
    rotary: float = 1.0  # share of head_dim that is rotated by position
    dropout: float = 0.0  # of what attention and mlp give back, while training
    attention_dropout: float = 0.0
    activation: str = "silu"  # its name in transformers' activations.py
    post_norm: bool = False  # norms stand behind attention and mlp alone
    float32_norms: bool = False  # layer norm and rotation are written out in float32
    float32_norm_weight: bool = False  # RMSNorm multiplies its weight in float32, before the cast back
    scaled_residual: bool = False  # what is added to the residual stream is multiplied first
    softcap: bool = False  # attention scores go through a soft cap
    eager: bool = False  # has no other attention
    logit_buffers: int = 0  # float32 chunks of logits that worker/head.py needs besides two: softcap 3, scale or bias 1


FAMILIES: dict[str, Traits] = {
    "biogpt": Traits(rotary=0, dropout=0.1, attention_dropout=0.1),
    "bloom": Traits(rotary=0, eager=True),
    "codegen": Traits(parallel=True, activation="gelu_new"),
    "cohere": Traits(parallel=True, float32_norms=True),
    "cohere2": Traits(parallel=True, float32_norms=True),
    "falcon": Traits(parallel=True),
    "glm": Traits(rotary=0.5),
    "glm4": Traits(rotary=0.5),
    "gpt2": Traits(rotary=0, dropout=0.1, attention_dropout=0.1, activation="gelu_new"),
    "gpt_bigcode": Traits(rotary=0, dropout=0.1, attention_dropout=0.1, activation="gelu_pytorch_tanh"),
    "gpt_neo": Traits(rotary=0, activation="gelu_new"),
    "gpt_neox": Traits(parallel=True, rotary=0.25),
    "gptj": Traits(parallel=True, activation="gelu_new"),
    "mpt": Traits(rotary=0, eager=True),
    "nemotron": Traits(rotary=0.5),
    "olmo2": Traits(post_norm=True, float32_norm_weight=True),
    "olmo3": Traits(post_norm=True, float32_norm_weight=True),
    "openai-gpt": Traits(rotary=0),
    "opt": Traits(rotary=0, dropout=0.1, activation="relu"),
    "persimmon": Traits(rotary=0.5),
    "phi": Traits(parallel=True, rotary=0.5, activation="gelu_new"),
    "stablelm": Traits(rotary=0.25),
    "xglm": Traits(rotary=0, dropout=0.1, attention_dropout=0.1),
}


def traits(facts: ModelFacts) -> Traits:
    """The family's traits, with what config.json says of them."""
    config = facts.text_config
    family = str(facts.text_config.get("model_type") or facts.model_type)
    default = FAMILIES.get(family, Traits())

    def first(*keys: str, default: Any) -> Any:
        return next((config[key] for key in keys if config.get(key) is not None), default)

    if family == "falcon":
        parallel = bool(first("use_parallel_residual", default=False) or first("parallel_attn", default=True))
    elif family in FAMILIES and default.parallel and family != "gpt_neox":
        parallel = True
    else:
        parallel = bool(first("use_parallel_residual", default=default.parallel))
    dropout = first("resid_pdrop", "hidden_dropout", "residual_dropout", "dropout", default=default.dropout)
    return default._replace(
        parallel=parallel,
        shared_norm=parallel and family != "gpt_neox",
        rotary=_rotary(config, default.rotary, facts.head_dim),
        dropout=float(dropout),
        attention_dropout=float(first("attn_pdrop", "attention_dropout", default=default.attention_dropout)),
        activation=str(first("hidden_activation", "hidden_act", "activation_function", default=default.activation)),
        float32_norm_weight=default.float32_norm_weight or family.startswith("gemma"),
        scaled_residual=config.get("residual_multiplier") is not None or family.startswith("granite"),
        softcap=bool(config.get("attn_logit_softcapping")),
        logit_buffers=_logit_buffers(config, facts),
    )


def _logit_buffers(config: dict[str, Any], facts: ModelFacts) -> int:
    """Chunks of float32 logits that the head's LogitTransform (worker/head.py) needs besides two."""
    if config.get("final_logit_softcapping"):
        return 3
    scales = [config.get(key) for key in ("logit_scale", "logits_scaling", "lm_head_multiplier")]
    scaled = any(scale not in (None, 1, 1.0) for scale in scales)
    biased = any(name.endswith(("lm_head.bias", "embed_out.bias")) for name in facts.tensors)
    return int(scaled or biased)


def _rotary(config: dict[str, Any], default: float, head_dim: int) -> float:
    if not default or config.get("alibi"):
        return 0.0
    rope = families.rope_parameters(config)
    share = config.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or config.get("rotary_pct")
    if share is None and config.get("rotary_dim"):
        return min(1.0, config["rotary_dim"] / head_dim)
    return float(default if share is None else share)
