"""Architecture: of what parts a decoder's layers are made, read from the names and shapes of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from studio.errors import ModelError
from studio.memory.traits import Traits, traits
from studio.model import ModelFacts

LAYER = re.compile(r"(.*?\.)?(layers|h|blocks|layer)\.(\d+)\.")
OTHER_TOWERS = re.compile(r"vision|visual|image|audio|speech")  # beside the language model
ATTENTION = re.compile(r"(^|\.)(self_attn|attn|attention|self_attention|mixer|temporal_block)(\.|$)")
O_PROJ = re.compile(r"(^|\.)(o_proj|out_proj|dense|c_proj|wo)$")
QKV = {
    "q_proj": re.compile("q(_proj|_b_proj|$)"),
    "k_proj": re.compile("k(_proj|$)"),
    "v_proj": re.compile("v(_proj|$)"),
}
DOWN_PROJ = ("down_proj", "w2", "c_proj", "fc2", "fc_out")
NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


class Linear(NamedTuple):
    """name: of its module in the model. role: q_proj, k_proj, v_proj, qkv_proj, o_proj, gate_proj, up_proj,
    gate_up_proj, down_proj, router, expert or other, whatever the family calls it.
    """

    name: str
    in_features: int
    out_features: int
    bias: bool
    role: str


class Layer(NamedTuple):
    """A decoder layer. norms: widths of those before and after attention and mlp; qk_norms: of queries and keys."""

    linears: tuple[Linear, ...]
    norms: tuple[int, ...]
    qk_norms: tuple[int, ...]
    gated: bool
    intermediate_size: int
    num_experts: int  # 0: dense
    other_numel: int  # elements of tensors that are neither linear nor norm (stacked experts, convolutions)
    prefix: str = ""  # "model.layers.0."

    def linears_of(self, role: str) -> list[Linear]:
        return [linear for linear in self.linears if linear.role == role]


@dataclass(frozen=True, eq=False)
class Architecture:
    """A decoder, told apart by identity: its layers in order, and widths.

    q_size, kv_size: of all heads' queries, and of all keys.
    """

    layers: tuple[Layer, ...]
    hidden_size: int
    q_size: int
    kv_size: int
    num_heads: int
    head_dim: int
    vocab_size: int
    embedding_numel: int
    tied: bool
    rms_norm: bool
    num_experts_per_tok: int
    traits: Traits = Traits()


@lru_cache(maxsize=32)
def read_architecture(facts: ModelFacts) -> Architecture:
    """The architecture of a model. Raises ModelError where it has no layers."""
    linears = facts.linears()
    names_of: dict[str, list[str]] = {}
    for name in facts.tensors:
        match = LAYER.match(name)
        if match and not OTHER_TOWERS.search(match.group(0)):
            names_of.setdefault(match.group(0), []).append(name)
    if not names_of:
        hint = "Only decoder-only language models can be tuned here."
        raise ModelError("The model's tensors show no layers.", hint, "model")
    config = facts.text_config
    biased_norms = any(re.search(r"norm.*\.bias$|ln_\w+\.bias$", name) for name in facts.tensors)
    return Architecture(
        layers=tuple(_layer(facts, prefix, names, linears) for prefix, names in names_of.items()),
        hidden_size=facts.hidden_size,
        q_size=facts.num_attention_heads * facts.head_dim,
        kv_size=facts.num_key_value_heads * facts.head_dim,
        num_heads=facts.num_attention_heads,
        head_dim=facts.head_dim,
        vocab_size=facts.vocab_size,
        embedding_numel=facts.vocab_size * facts.hidden_size,
        tied=facts.tie_word_embeddings,
        rms_norm=not biased_norms,
        num_experts_per_tok=int(config.get("num_experts_per_tok") or config.get("num_experts_per_token") or 0),
        traits=traits(facts),
    )


def _layer(facts: ModelFacts, prefix: str, names: list[str], module_shapes: dict[str, tuple[int, int]]) -> Layer:
    linears: list[Linear] = []
    norms: list[int] = []
    qk_norms: list[int] = []
    other_numel = 0
    for name in names:
        module, shape = name.removesuffix(".weight"), facts.tensors[name].shape
        inside = module[len(prefix) :]
        if module in module_shapes and name.endswith(".weight"):
            in_features, out_features = module_shapes[module]
            role = _role(inside, in_features, out_features, facts.hidden_size)
            linears.append(Linear(module, in_features, out_features, f"{module}.bias" in facts.tensors, role))
        elif len(shape) == 1 and name.endswith(".weight") and re.search(r"norm|ln_|(^|\.)ln\d", inside):
            (qk_norms if ATTENTION.search(inside) else norms).append(shape[0])
        elif not name.endswith(".bias"):
            other_numel += prod(shape)
    config, roles = facts.text_config, {linear.role for linear in linears}
    expert_size = int(config.get("moe_intermediate_size") or facts.intermediate_size)
    down_proj = next((linear for linear in linears if linear.role == "down_proj"), None)
    intermediate_size = down_proj.in_features if down_proj else expert_size
    num_experts = 0
    if "expert" in roles or other_numel > facts.hidden_size * intermediate_size:
        num_experts = int(next((config[key] for key in NUM_EXPERTS if config.get(key)), 0))
    return Layer(
        linears=tuple(linears),
        norms=tuple(norms),
        qk_norms=tuple(qk_norms),
        gated="gate_proj" in roles or "gate_up_proj" in roles or num_experts > 0,
        intermediate_size=expert_size if num_experts else intermediate_size,
        num_experts=num_experts,
        other_numel=other_numel,
        prefix=prefix,
    )


def _role(inside: str, in_features: int, out_features: int, hidden_size: int) -> str:
    """A linear's role, from its name inside the layer and its widths."""
    last = inside.rsplit(".", 1)[-1]
    if ATTENTION.search(inside):
        for role, pattern in QKV.items():
            if pattern.match(last):
                return role
        if O_PROJ.search(inside) and "query_key_value" not in inside:
            return "o_proj"
        fused = out_features > in_features or "qkv" in last.lower() or last in ("c_attn", "query_key_value")
        return "qkv_proj" if fused else "other"
    if re.search(r"experts\.\d+", inside):
        return "expert"
    narrow_gate = out_features <= 512 < in_features and "gate" in last and "proj" not in last
    if last in ("gate", "router") or narrow_gate:
        return "router"
    if "gate_up" in last:
        return "gate_up_proj"
    if last in ("gate_proj", "w1"):
        return "gate_proj"
    narrows = out_features == hidden_size and in_features != hidden_size
    return "down_proj" if narrows or last in DOWN_PROJ else "up_proj"
