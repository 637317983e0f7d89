"""Which linears of a model a method touches: chosen by role or by name, alike from the weights list and from the live
model.

A `Linears` is module name -> (in, out). ModelFacts.linears() gives it without torch, `live` from a loaded model; both
agree.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from studio.errors import OrderError

Linears = dict[str, tuple[int, int]]

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.(\d+)\.")
ATTENTION = re.compile(r"(?:^|\.)(?:self_attn|attn|attention|self_attention|linear_attn)\.")
QUERY_VALUE = re.compile(r"(?:^|\.)(?:q|q_proj|q_lin|query|wq|q_a_proj|q_b_proj|v|v_proj|v_lin|value|wv|kv_b_proj)$")
FUSED = re.compile(
    r"(?:^|\.)(?:c_attn|qkv_proj|query_key_value|Wqkv|wqkv|qkv|attn_qkv)$"
)  # query, key and value in one matrix
END = re.compile(
    r"(?:^|\.)(?:o_proj|out_proj|c_proj|dense|dense_4h_to_h|down_proj|fc2|w2|wo|fc_out|proj|linear2)$"
)  # last of a sublayer
KEY = re.compile(r"(?:^|\.)(?:k|k_proj|k_lin|key|wk)$")
EXPERTS = re.compile(r"expert")

PRESETS = ("q-v", "attention", "all-linear")


def layer_of(name: str) -> int | None:
    """The number of the layer a weight or module belongs to; None for embeddings, last norm and head."""
    found = LAYER.search(name)
    return int(found.group(1)) if found else None


def is_called(name: str, word: str) -> bool:
    """Whether a module is meant by a word: its whole name, or the end of it from a dot on (peft's rule)."""
    return name == word or name.endswith("." + word)


def choose(wanted: str | tuple[str, ...], linears: Linears, where: str = "method.target_modules") -> Linears:
    """The linears meant by a preset or by names. Raises OrderError for every name that matches nothing, with the
    nearest ones.
    """
    if wanted == "all-linear":
        return dict(linears)
    if wanted == "attention":
        return _found(
            {name: shape for name, shape in linears.items() if ATTENTION.search(name)}, "attention", linears, where
        )
    if wanted == "q-v":
        return _found(_query_value(linears), "q-v", linears, where)
    words = (wanted,) if isinstance(wanted, str) else wanted
    strangers = [word for word in words if not any(is_called(name, word) for name in linears)]
    if strangers:
        raise OrderError(
            f"No layer of this model is called {' or '.join(map(repr, strangers))}.",
            _nearest(strangers, linears),
            where,
        )
    return {name: shape for name, shape in linears.items() if any(is_called(name, word) for word in words)}


def _query_value(linears: Linears) -> Linears:
    apart = {name: shape for name, shape in linears.items() if QUERY_VALUE.search(name)}
    return apart or {name: shape for name, shape in linears.items() if FUSED.search(name)}


def _found(chosen: Linears, preset: str, linears: Linears, where: str) -> Linears:
    if not chosen:
        raise OrderError(
            f"This model has no layers that {preset} could mean.",
            f"Take all-linear, or names of its own: {', '.join(words(linears))}.",
            where,
        )
    return chosen


def _nearest(strangers: list[str], linears: Linears) -> str:
    known = words(linears)
    near = list(
        dict.fromkeys(match for word in strangers for match in difflib.get_close_matches(word, known, n=2, cutoff=0.4))
    )
    asked = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{asked}The model has: {', '.join(known)}."


def words(linears: Linears) -> list[str]:
    """The last parts of the names, once each: q_proj, k_proj, …"""
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linears))


def condense(chosen: Linears, names: list[str]) -> list[str]:
    """The shortest endings that mean the chosen modules and none else of `names`, as peft's target_modules."""
    others = [name for name in names if name not in chosen]
    short = []
    for name in chosen:
        parts = name.split(".")
        endings = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        short.append(
            next((ending for ending in endings if not any(is_called(other, ending) for other in others)), name)
        )
    return list(dict.fromkeys(short))


def ends(linears: Linears) -> dict[str, dict[int, str]]:
    """ "attention" and "feed-forward" -> layer number -> the linear the sublayer ends in, where there is exactly
    one.
    """
    found: dict[str, dict[int, list[str]]] = {"attention": {}, "feed-forward": {}}
    for name in linears:
        layer, inside = layer_of(name), LAYER.search(name)
        inner = name[inside.end() :] if inside else ""
        if layer is None or not END.search(name) or EXPERTS.search(inner):
            continue
        found["attention" if ATTENTION.search(name) else "feed-forward"].setdefault(layer, []).append(name)
    return {
        part: {layer: names[0] for layer, names in sorted(layers.items()) if len(names) == 1}
        for part, layers in found.items()
    }


def live(model: Any) -> Linears:
    """The linears of a loaded model, quantized ones too; the head left out."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    found: Linears = {}
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, torch.nn.Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = tuple(module.weight.shape)
    return found
