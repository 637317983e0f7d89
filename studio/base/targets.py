"""Which linears of a model a method touches, chosen by role or by name.

Linears: module name -> (in, out). ModelFacts.linears() returns them without torch, `live` from a loaded model; both
agree.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any

from studio.errors import OrderError

Linears = dict[str, tuple[int, int]]
MOST_NAMES = 1000  # of layers, in an order

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.(\d+)\.")
ATTENTION = re.compile(r"(?:^|\.)(?:self_attn|attn|attention|self_attention|linear_attn)\.")
QUERY_VALUE = re.compile(r"(?:^|\.)(?:q|q_proj|q_lin|query|wq|q_a_proj|q_b_proj|v|v_proj|v_lin|value|wv|kv_b_proj)$")
# query, key and value in one matrix
FUSED = re.compile(r"(?:^|\.)(?:c_attn|qkv_proj|query_key_value|Wqkv|wqkv|qkv|attn_qkv)$")
# last of a sublayer
END = re.compile(r"(?:^|\.)(?:o_proj|out_proj|c_proj|dense|dense_4h_to_h|down_proj|fc2|w2|wo|fc_out|proj|linear2)$")
EXPERTS = re.compile(r"expert")
# transformers holds a layer's experts in one stacked tensor, which is no linear; what chooses among them stays as it is
ROUTED = re.compile(r"(^|\.)(experts|router)(\.|$)")
# parts of a model that also sees or hears: a text never runs through them
NOT_TEXT = re.compile(
    r"(^|\.)(vision\w*|visual|image\w*|audio\w*|speech\w*|embed_(vision|audio)|multi_modal_projector)(\.|$)"
)

PRESETS = ("q-v", "attention", "all-linear")


def split_names(value: Any, words: Collection[str]) -> Any:
    """Names of layers written in one line as several; one of the words stays. Raises ValueError for too many."""
    if isinstance(value, str) and value not in words:
        value = tuple(name for name in re.split(r"[\s,]+", value) if name)
    if isinstance(value, list | tuple) and len(value) > MOST_NAMES:
        raise ValueError(f"{len(value):,} layers are named, and {MOST_NAMES:,} can be")
    return value


def layer_of(name: str) -> int | None:
    """The number of the layer a weight or module belongs to; None for embeddings, last norm and head."""
    match = LAYER.search(name)
    return int(match.group(1)) if match else None


def is_called(name: str, word: str) -> bool:
    """Whether a module is meant by a word: its whole name, or the end of it from a dot on (peft's rule)."""
    return name == word or name.endswith("." + word)


def choose(targets: str | tuple[str, ...], linears: Linears, where: str = "method.target_modules") -> Linears:
    """The linears that a text runs through meant by one of PRESETS or by names.

    Raises OrderError for names that match nothing.
    """
    linears = {name: shape for name, shape in linears.items() if not NOT_TEXT.search(name)}
    if targets == "all-linear":
        return dict(linears)
    if targets in ("attention", "q-v"):
        patterns = (ATTENTION,) if targets == "attention" else (QUERY_VALUE, FUSED)
        for pattern in patterns:
            if chosen := {name: shape for name, shape in linears.items() if pattern.search(name)}:
                return chosen
        hint = f"Take all-linear, or names of its own: {', '.join(words(linears))}."
        raise OrderError(f"This model has no layers that {targets} could mean.", hint, where)
    names = (targets,) if isinstance(targets, str) else targets
    unknown = [word for word in names if not any(is_called(name, word) for name in linears)]
    if unknown:
        known = words(linears)
        close = [match for word in unknown for match in difflib.get_close_matches(word, known, n=2, cutoff=0.4)]
        hint = f"The model has: {', '.join(known)}."
        if close:
            hint = f"Did you mean {' or '.join(dict.fromkeys(close))}? {hint}"
        raise OrderError(f"No layer of this model is called {' or '.join(map(repr, unknown))}.", hint, where)
    return {name: shape for name, shape in linears.items() if any(is_called(name, word) for word in names)}


def words(linears: Linears) -> list[str]:
    """The last parts of the names, once each: q_proj, k_proj, …"""
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linears))


def condense(chosen: Linears, names: list[str]) -> list[str]:
    """The shortest endings that mean the chosen modules and none else of `names`, as peft's target_modules."""
    others = [name for name in names if name not in chosen]
    shortest = []
    for name in chosen:
        parts = name.split(".")
        endings = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        unique = (ending for ending in endings if not any(is_called(other, ending) for other in others))
        shortest.append(next(unique, name))
    return list(dict.fromkeys(shortest))


def ends(linears: Linears) -> dict[str, dict[int, str]]:
    """ "attention" and "feed-forward" -> layer number -> the linear that ends the sublayer, where there is one."""
    by_part: dict[str, dict[int, list[str]]] = {"attention": {}, "feed-forward": {}}
    for name in linears:
        match = LAYER.search(name)
        if match is None or not END.search(name) or EXPERTS.search(name, match.end()) or NOT_TEXT.search(name):
            continue
        part = "attention" if ATTENTION.search(name) else "feed-forward"
        by_part[part].setdefault(int(match.group(1)), []).append(name)
    return {
        part: {layer: names[0] for layer, names in sorted(layers.items()) if len(names) == 1}
        for part, layers in by_part.items()
    }


def routers(names: Iterable[str]) -> set[str]:
    """The gates beside the experts among names of modules or tensors: they choose, and are no layer to adapt."""
    return {name.partition(".experts")[0] + ".gate" for name in names if ".experts" in name}


def live(model: Any) -> Linears:
    """The linears of a loaded model, quantized ones too; head and routers left out."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head, modules = model.get_output_embeddings(), dict(model.named_modules())
    gates = routers(modules)
    linears: Linears = {}
    for name, module in modules.items():
        if module is head or name in gates or ROUTED.search(name):
            continue
        if isinstance(module, torch.nn.Linear):
            linears[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            linears[name] = tuple(module.weight.shape)
    return linears
