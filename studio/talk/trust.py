"""Whether an adapter can be trusted on a base: weights, rows and start are those that it was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio import data, model, run, token_rows
from studio.base import source
from studio.errors import ModelError
from studio.runs import checkpoints
from studio.talk import base_record


def check_base(parent: run.Run, base: Path, manifest: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Raise ModelError where the base's weights, settings or tokenizer are no longer those that were trained on."""
    record = manifest if "base_fingerprint" in manifest else parent.plan()
    difference = base_record.difference(record, base)
    if difference == base_record.WEIGHTS:
        message = f"The base under {parent.id} has other weights than when it was trained: {base}."
        hint = "Put the weights of then back there (their revision on the Hub, a copy), or train anew on the new ones."
        raise ModelError(message, hint, "model")
    if difference:
        raise ModelError(
            f"The base under {parent.id} would answer otherwise than when it was trained: in {base} differ "
            f"{difference}.",
            "Put the files of then back there (their revision on the Hub, a copy), or train anew on the new ones.",
            "model",
        )


def check_going_on(parent: run.Run) -> None:
    """Raise DataError or ModelError where an ended run cannot go on because its data or its base is gone, or the base
    is another one: before it is queued, which would end a finished run as failed.
    """
    if parent.config.place.remote:
        return
    data.check_found(parent.config.data)
    folder = source.check(parent.config.model)
    if folder and checkpoints.newest(parent.checkpoints):
        check_base(parent, folder)


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
