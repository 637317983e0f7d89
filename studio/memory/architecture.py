"""Architecture: of what parts a decoder's layers are made, read from the names and shapes of its tensors."""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod
from typing import NamedTuple

from studio.errors import ModelError
from studio.memory.traits import Traits, traits
from studio.model import ModelFacts

LAYER = re.compile(r"(.*?\.)?(layers|h|blocks|layer)\.(\d+)\.")
BESIDE = re.compile(r"vision|visual|image|audio|speech")  # towers beside the language model
ATTENTION = re.compile(r"(^|\.)(self_attn|attn|attention|self_attention|mixer|temporal_block)(\.|$)")
OUTPUT = re.compile(r"(^|\.)(o_proj|out_proj|dense|c_proj|wo)$")
QUERY, KEY, VALUE = (re.compile(rf"(^|\.){name}") for name in ("q(_proj|_b_proj|$)", "k(_proj|$)", "v(_proj|$)"))


class Linear(NamedTuple):
    """One linear: its full module name, widths, whether it has a bias, and of which part it is."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    part: str  # query, key, value, fused, output, gate, up, down, router, expert, other


class Layer(NamedTuple):
    """Parts of one layer. norms: widths of those before and after the two halves; inner: widths of norms on queries and keys."""

    linears: tuple[Linear, ...]
    norms: tuple[int, ...]
    inner: tuple[int, ...]
    gated: bool
    width: int  # of the feed-forward
    experts: int  # 0: dense
    loose: int  # elements in tensors that are neither linear nor norm (stacked experts, convolutions)
    prefix: str = ""  # "model.layers.0."

    def part(self, name: str) -> list[Linear]:
        return [linear for linear in self.linears if linear.part == name]


class Architecture(NamedTuple):
    """layers: in order. embedding: elements looked up, not multiplied. table, final: names of its tensor and of the last norm's."""

    layers: tuple[Layer, ...]
    hidden: int
    query: int
    keys: int
    heads: int
    head_dim: int
    vocabulary: int
    embedding: int
    tied: bool
    rms: bool
    active: int  # experts a token visits
    traits: Traits = Traits()


def read_architecture(facts: ModelFacts) -> Architecture:
    """The architecture of a model, kept for the next question about the same facts. Raises ModelError where no layers are to be seen."""
    return _read(Same((facts,)))


class Same(tuple):
    """A one-tuple that is equal by identity of what it holds: facts are frozen but hold dicts, which cannot be hashed."""

    def __hash__(self) -> int:
        return id(self[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self[0] is other[0]


@lru_cache(maxsize=32)
def _read(same: Same) -> Architecture:
    facts: ModelFacts = same[0]
    shapes = {name: tensor.shape for name, tensor in facts.tensors.items()}
    linears = facts.linears()
    groups: dict[str, list[str]] = {}
    for name in shapes:
        found = LAYER.match(name)
        if found and not BESIDE.search(found.group(0)):
            groups.setdefault(found.group(0), []).append(name)
    if not groups:
        raise ModelError(
            "The model's tensors show no layers.", "Only decoder-only language models can be tuned here.", "model"
        )
    config = facts.text_config
    biased = any(re.search(r"norm.*\.bias$|ln_\w+\.bias$", name) for name in shapes)
    return Architecture(
        layers=tuple(_layer(facts, prefix, names, shapes, linears) for prefix, names in groups.items()),
        hidden=facts.hidden_size,
        query=facts.num_attention_heads * facts.head_dim,
        keys=facts.num_key_value_heads * facts.head_dim,
        heads=facts.num_attention_heads,
        head_dim=facts.head_dim,
        vocabulary=facts.vocab_size,
        embedding=facts.vocab_size * facts.hidden_size,
        tied=facts.tie_word_embeddings,
        rms=not biased,
        active=int(config.get("num_experts_per_tok") or config.get("num_experts_per_token") or 0),
        traits=traits(facts),
    )


def _layer(
    facts: ModelFacts,
    prefix: str,
    names: list[str],
    shapes: dict[str, tuple[int, ...]],
    linears: dict[str, tuple[int, int]],
) -> Layer:
    found: list[Linear] = []
    norms: list[int] = []
    inner: list[int] = []
    loose = 0
    for name in names:
        module, shape = name.removesuffix(".weight"), shapes[name]
        inside = name[len(prefix) :]
        if module in linears and name.endswith(".weight"):
            inputs, outputs = linears[module]
            found.append(
                Linear(
                    module,
                    inputs,
                    outputs,
                    f"{module}.bias" in shapes,
                    _part(inside.removesuffix(".weight"), inputs, outputs, facts),
                )
            )
        elif len(shape) == 1 and name.endswith(".weight") and re.search(r"norm|ln_|(^|\.)ln\d", inside):
            (inner if ATTENTION.search(inside) else norms).append(shape[0])
        elif not name.endswith(".bias"):
            loose += prod(shape)
    return _finished(found, norms, inner, loose, facts)._replace(prefix=prefix)


def _part(inside: str, inputs: int, outputs: int, facts: ModelFacts) -> str:
    """Which part of a layer a linear is, from its name inside the layer and its widths."""
    last = inside.rsplit(".", 1)[-1]
    if ATTENTION.search(inside):
        for pattern, part in ((QUERY, "query"), (KEY, "key"), (VALUE, "value")):
            if pattern.match(last):
                return part
        if OUTPUT.search(inside) and "query_key_value" not in inside:
            return "output"
        return (
            "fused" if outputs > inputs or "qkv" in last.lower() or last in ("c_attn", "query_key_value") else "other"
        )
    if "expert" in inside and re.search(r"experts\.\d+", inside):
        return "expert"
    if last in ("gate", "router") or outputs <= 512 < inputs and "gate" in last and "proj" not in last:
        return "router"
    if "gate_up" in last or last == "gate_up_proj":
        return "gate_up"
    if last in ("gate_proj", "w1"):
        return "gate"
    return (
        "down"
        if outputs == facts.hidden_size
        and inputs != facts.hidden_size
        or last in ("down_proj", "w2", "c_proj", "fc2", "fc_out")
        else "up"
    )


def _finished(found: list[Linear], norms: list[int], inner: list[int], loose: int, facts: ModelFacts) -> Layer:
    parts = {linear.part for linear in found}
    experts = [linear for linear in found if linear.part == "expert"]
    config = facts.text_config
    down = next((linear for linear in found if linear.part == "down"), None)
    routed = int(config.get("moe_intermediate_size") or facts.intermediate_size)
    width = down.inputs if down else routed
    named = next(
        (config[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key)), 0
    )
    count = int(named) if experts or loose > facts.hidden_size * width else 0
    return Layer(
        tuple(found),
        tuple(norms),
        tuple(inner),
        "gate" in parts or "gate_up" in parts or bool(count),
        routed if count else width,
        count,
        loose,
    )
