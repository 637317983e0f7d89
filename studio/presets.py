"""Presets by goal: what a first-time user wants, as changes to an order, which then says them in full."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple


class Preset(NamedTuple):
    """A goal, and the keys of an order it sets; every key not named stays as it is."""

    name: str
    label: str
    about: str  # one sentence: what it is for, and what it gives up
    patch: dict[str, dict[str, Any]]  # section -> keys; `method` replaces the method whole


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "quick",
            "Quick try",
            "One pass over the data with a small LoRA, to see whether data and template are right; it learns the "
            "tone, not much more.",
            {
                "method": {"name": "lora", "rank": 8, "target_modules": "attention"},
                "training": {"epochs": 1, "eval_every": "auto"},
            },
        ),
        Preset(
            "balanced",
            "Balanced",
            "The defaults that the tutorials teach: LoRA of rank 16 on every linear, three passes; right for most "
            "data.",
            {"method": {"name": "lora", "rank": 16, "target_modules": "all-linear"}, "training": {"epochs": 3}},
        ),
        Preset(
            "best",
            "Best quality",
            "A large rank, a smaller rate, and the checkpoint with the lowest held-out loss; takes the longest of "
            "the LoRAs.",
            {
                "method": {"name": "lora", "rank": 64, "rslora": True, "target_modules": "all-linear"},
                "training": {
                    "epochs": 4,
                    "learning_rate": 1e-4,
                    "warmup": 0.05,
                    "keep_best": True,
                    "early_stopping": 3,
                },
            },
        ),
        Preset(
            "smallest",
            "Smallest memory",
            "The base in 4 bits, one row at a time, activations computed twice: fits where nothing else does, at "
            "half speed.",
            {
                "method": {"name": "qlora", "rank": 8, "target_modules": "all-linear"},
                "training": {
                    "epochs": 3,
                    "batch_size": 1,
                    "accumulation": 16,
                    "checkpointing": True,
                    "loss": "chunked",
                },
            },
        ),
    )
}

TOUCHED = (
    "learning_rate", "warmup", "epochs", "batch_size", "accumulation", "checkpointing", "loss", "keep_best",
    "early_stopping", "eval_every"
)  # fmt: skip


def applied(name: str, order: dict[str, Any]) -> dict[str, Any]:
    """A plain order with a preset on it; what another preset may have set gets its default. Raises KeyError."""
    changed = deepcopy(order)
    training = changed.setdefault("training", {})
    for key in TOUCHED:
        training.pop(key, None)
    for section, keys in PRESETS[name].patch.items():
        changed[section] = dict(keys) if section == "method" else {**changed.get(section, {}), **keys}
    return changed
