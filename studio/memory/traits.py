"""Traits: how a family's decoder layer computes, where names and shapes of its tensors do not tell; read from config.json, else the family's defaults.

Each is how transformers' modeling file of the family writes it; tests/test_estimate_trace.py holds them against real steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from studio.model import ModelFacts

SIDE_BY_SIDE = ("phi", "cohere", "cohere2", "gptj", "codegen")
UNROTATED = ("gpt2", "gpt_bigcode", "opt", "bloom", "mpt", "xglm", "openai-gpt", "gpt_neo", "biogpt")
PARTLY = {"phi": 0.5, "gpt_neox": 0.25, "stablelm": 0.25, "glm": 0.5, "glm4": 0.5, "persimmon": 0.5, "nemotron": 0.5}
DROPPING = {"gpt2": (0.1, 0.1), "gpt_bigcode": (0.1, 0.1), "opt": (0.1, 0.0), "xglm": (0.1, 0.1), "biogpt": (0.1, 0.1)}
BENT = dict.fromkeys(("gpt2", "phi", "gptj", "gpt_neo", "codegen"), "gelu_new") | {
    "gpt_bigcode": "gelu_pytorch_tanh",
    "opt": "relu",
}


class Traits(NamedTuple):
    """parallel: attention and feed-forward read the same input side by side; shared: through one norm.

    rotary: share of a head that is turned by position. dropout, attention_dropout: rates while training. activation: its name in transformers.
    behind: norms stand behind the halves alone. widened: norms and angles written out in float32. late: a norm's weight is multiplied in float32.
    multiplied: what is added to the stream is scaled first. capped: scores go through a soft cap. eager: the only attention there is.
    """

    parallel: bool = False
    shared: bool = False
    rotary: float = 1.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "silu"
    behind: bool = False
    widened: bool = False
    late: bool = False
    multiplied: bool = False
    capped: bool = False
    eager: bool = False
    bent: int = 0  # chunks of float32 logits that worker/loss.py needs beside its two, where logits are capped (3), scaled or shifted (1)


def traits(facts: ModelFacts) -> Traits:
    """Of a model."""
    config, kind = facts.text_config, str(facts.config.get("text_config", {}).get("model_type") or facts.model_type)

    def first(*keys: str, default: Any) -> Any:
        return next((config[key] for key in keys if config.get(key) is not None), default)

    dropped = DROPPING.get(kind, (0.0, 0.0))
    parallel = kind in SIDE_BY_SIDE or bool(first("use_parallel_residual", default=kind == "gpt_neox"))
    parallel = parallel or kind == "falcon" and bool(first("parallel_attn", default=True))
    return Traits(
        parallel=parallel,
        shared=parallel and kind != "gpt_neox",
        rotary=_rotary(config, kind, facts.head_dim),
        dropout=float(first("resid_pdrop", "hidden_dropout", "residual_dropout", "dropout", default=dropped[0])),
        attention_dropout=float(first("attn_pdrop", "attention_dropout", default=dropped[1])),
        activation=str(first("hidden_activation", "hidden_act", "activation_function", default=BENT.get(kind, "silu"))),
        behind=kind in ("olmo2", "olmo3"),
        widened=kind in ("cohere", "cohere2"),
        late=kind in ("olmo2", "olmo3") or kind.startswith("gemma"),
        multiplied=first("residual_multiplier", default=None) is not None or kind.startswith("granite"),
        capped=bool(config.get("attn_logit_softcapping")),
        eager=kind in ("bloom", "mpt"),
        bent=3 if config.get("final_logit_softcapping") else 1 if _shifted(config, facts) else 0,
    )


def _shifted(config: dict[str, Any], facts: ModelFacts) -> bool:
    """Whether the head has a bias, or its logits are scaled (worker/loss.py's Bend)."""
    told = [config.get(key) for key in ("logit_scale", "logits_scaling", "lm_head_multiplier")]
    return any(value not in (None, 1, 1.0) for value in told) or any(
        name.endswith(("lm_head.bias", "embed_out.bias")) for name in facts.tensors
    )


def _rotary(config: dict[str, Any], kind: str, width: int) -> float:
    if kind in UNROTATED or config.get("alibi"):
        return 0.0
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    share = config.get("partial_rotary_factor") or told.get("partial_rotary_factor") or config.get("rotary_pct")
    if share is None and config.get("rotary_dim"):
        return min(1.0, config["rotary_dim"] / width)
    return float(share if share is not None else PARTLY.get(kind, 1.0))
