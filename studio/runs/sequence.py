"""The order under which a run's checkpoints were made, and which changes of it a resume allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.errors import RunError
from studio.home import write_atomic
from studio.runs.checkpoints import newest

FILE = "sequence.json"
BATCH = "training.batch_size × training.accumulation"  # the trainer resolves `auto` from the rows
FREE_TO_CHANGE = (
    "epochs, max_steps, learning rate, schedule, checkpointing, loss, attention, how often it logs, "
    "evaluates and saves, and "
    "batch size with accumulation as long as their product stays"
)


def sequence(config: RunConfig) -> dict[str, Any]:
    """The settings that a resume needs unchanged: they fix the order of rows, the weights and the optimizer state."""
    order = config.model_dump(mode="json")
    training = order["training"]
    fields = {
        f"{section}.{key}": value for section in ("model", "data", "method") for key, value in order[section].items()
    }
    batch, accumulation = config.training.batch_size, config.training.accumulation
    fields[BATCH] = f"{batch} × auto" if accumulation == "auto" else batch * accumulation
    fields |= {
        f"training.{key}": training[key] for key in ("seed", "packing", "optimizer", "devices") if key in training
    }
    for key, value in (("weights", "bf16"), ("sharding", "fsdp")):
        if training.get(key) == value:
            fields[f"training.{key}"] = value
    return fields


def differences(before: RunConfig, after: RunConfig) -> list[str]:
    """What another order has otherwise: ["training.batch_size 8 → 4", …]."""
    old, new = (config.model_dump(mode="json") for config in (before, after))
    return [
        f"{section}.{key} {_shown(old[section].get(key))} → {_shown(value)}"
        for section, values in new.items()
        if isinstance(values, dict) and isinstance(old[section], dict)
        for key, value in values.items()
        if old[section].get(key) != value
    ]


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def begin(folder: Path, config: RunConfig) -> None:
    """Store the order for a run without checkpoints. Raises RunError if there are checkpoints of another order."""
    refuse_other_order(folder, config)
    if newest(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / FILE, json.dumps(sequence(config), indent=1, ensure_ascii=False))


def refuse_other_order(folder: Path, config: RunConfig, effective_batch: int | None = None) -> None:
    """Raise RunError if a resume with this order would change rows, weights or optimizer of the checkpoints."""
    if newest(folder) is None:
        return
    try:
        before = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return  # written by a version without this file
    now = json.loads(json.dumps(sequence(config)))
    keys = sorted(before.keys() | now.keys())
    if before.get("method.name") != now.get("method.name"):
        keys = [key for key in keys if key == "method.name" or not key.startswith("method.")]  # methods differ in keys
    changed = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in keys
        if before.get(key) != now.get(key) and not (key == BATCH and "auto" in f"{before.get(key)}{now.get(key)}")
    ]
    ordered = now[BATCH]
    if effective_batch and isinstance(ordered, int) and ordered != effective_batch and not changed:
        changed = [f"{BATCH} was {effective_batch} and is {ordered}"]
    if changed:
        message = f"The order was changed since the checkpoint: {'; '.join(changed[:5])}."
        hint = f"Put it back, or start a new run. A resume may change {FREE_TO_CHANGE}."
        raise RunError(message, hint, changed[0].split(" ")[0])
