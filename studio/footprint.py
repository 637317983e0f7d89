"""What a tuning method puts on a model, as far as memory is concerned; read from the names of what it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Footprint:
    """What a method adds to a model. Instances compare by identity, so that results computed from one can be cached.

    Module names are the model's own ("model.layers.0.self_attn.q_proj").

    low_rank: module -> rank of the pair of matrices beside it, with dropout on their input; decomposed: DoRA's length
    vector is there. bottleneck: module -> width of the network behind it. scaled: module -> elements of the vector its
    input or output is multiplied by. rows: elements of a table's rows that are trained alone, for new tokens. weights:
    names of the model's own tensors that are trained; copies: of them, those of which a copy is trained beside the
    original. virtual: tokens put before every row; prefix: keys and values put before every layer's own; encoder:
    elements of the trained network that makes either. trained_itemsize: bytes of a trained number. quantized: how the
    linears of the frozen base are held, (kind, double), or None. shapes: of all trained tensors, by name.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    low_rank: Mapping[str, int] = field(default_factory=dict)
    dropout: float = 0.0
    decomposed: bool = False
    bottleneck: Mapping[str, int] = field(default_factory=dict)
    scaled: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    weights: frozenset[str] = frozenset()
    copies: frozenset[str] = frozenset()
    virtual: int = 0
    prefix: int = 0
    encoder: int = 0
    quantized: tuple[str, bool] | None = None
    trained_itemsize: int = 4


def of(shapes: Mapping[str, Shape], **more: Any) -> Footprint:
    """The footprint that trained tensors tell by their names (Method.trained); `more`: what names cannot tell."""
    low_rank: dict[str, int] = {}
    bottleneck: dict[str, int] = {}
    scaled: dict[str, int] = {}
    weights: set[str] = set()
    copies: set[str] = set()
    rows = encoder = 0
    decomposed = False
    for name, shape in shapes.items():
        module, _, last = name.rpartition(".")
        if last == "lora_A":
            low_rank[module] = shape[0]
        elif name.endswith(".adapter_down.weight"):
            bottleneck[name.removesuffix(".adapter_down.weight")] = shape[0]
        elif last == "ia3_l":
            scaled[module] = shape[0]
        elif last == "lora_magnitude_vector":
            decomposed = True
        elif last == "trainable_tokens_delta":
            rows = max(rows, shape[0] * shape[1])
        elif name.startswith(("prompt_encoder", "lstm", "mlp.")):
            encoder = max(encoder, shape[0])
        elif last != "lora_B" and not name.endswith((".adapter_down.bias", ".adapter_up.weight", ".adapter_up.bias")):
            weights.add(name.removesuffix(" (whole)"))
            if name.endswith(" (whole)"):
                copies.add(name.removesuffix(" (whole)"))
    return Footprint(
        shapes=shapes,
        rows=rows,
        low_rank=low_rank,
        bottleneck=bottleneck,
        scaled=scaled,
        weights=frozenset(weights),
        copies=frozenset(copies),
        encoder=encoder,
        decomposed=decomposed,
        **more,
    )
