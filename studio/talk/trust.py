"""Whether an adapter can be trusted on a base: it writes text, and its rows and start are those it was trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio import model, token_rows
from studio.errors import ModelError


def refuse_unwritten(folder: Path, config: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Raise ModelError for an adapter that writes no text, or whose base peft cannot make again."""
    scores = (manifest.get("stage") or {}).get("name") == "reward"
    task = config.get("task_type")
    if scores or task not in (None, "CAUSAL_LM"):
        message = f"The adapter in {folder} writes no text: it is for {'scores' if scores else task}."
        hint = "Give one that was trained as a causal language model (CAUSAL_LM)."
        raise ModelError(message, hint, "model")
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(("pissa_niter", "loftq", "corda", "lora_ga")):
        raise ModelError(
            f"The adapter in {folder} started from {start}, which took parts at random or by its data out of the "
            "base's weights: what it stands on cannot be made again.",
            "Save it with peft as a change of the original weights: save_pretrained(…, "
            "path_initial_model_for_weight_conversion=…).",
            "model",
        )


def check_rows(folder: Path, base: Path) -> None:
    """Raise ModelError where an adapter's tokenizer has tokens for which neither the base nor the adapter has rows."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    known = model.facts(base).rows
    ids = [*tokenizer["model"].get("vocab", {}).values(), *(added["id"] for added in tokenizer.get("added_tokens", []))]
    count = 1 + max(ids, default=-1)
    rows = token_rows.table_size(folder, known)
    needed = set(range(known, count))
    partial = any(needed - set(indices) for indices in token_rows.saved_indices(folder).values())
    if count > rows or (partial and token_rows.table_rows(folder) is None):
        raise ModelError(
            f"The tokenizer of the adapter {folder.name} has {count} tokens, but there are rows for {rows} only: the "
            "words that were added have none.",
            "Save the adapter again with its embedding (peft: save_embedding_layers=True).",
            "model",
        )
