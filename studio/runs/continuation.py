"""Whether a run can go on from its checkpoints: its base and its rows are those that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio import data
from studio.base import source
from studio.config import RunConfig
from studio.errors import ModelError
from studio.runs import base_record, checkpoints
from studio.runs.folder import Run
from studio.tokens import Encoder


def check(run: Run, config: RunConfig) -> None:
    """Raise StudioError where an ended run cannot go on with this order because its data or its base is gone or another
    one: before it is queued, which would end a finished run as failed.
    """
    if config.place.remote:
        return
    data.check_found(config.data)
    folder, checkpoint = source.check(config.model), checkpoints.newest(run.checkpoints)
    if folder and checkpoint:
        check_base(run, folder)
        trained = [part["fingerprint"] for part in run.plan().get("data", {}).get("sources", [])]
        if trained and trained != data.fingerprints(config.data):  # the rows may be the same ones none the less
            encoder = Encoder.from_order(config.data, folder, num_virtual_tokens=config.virtual_tokens)
            rows = data.prepare(config.data, encoder, config.training.seed)
            checkpoints.refuse_other_data(checkpoint, rows.train.content)


def check_base(parent: Run, base: Path, manifest: Mapping[str, Any] = MappingProxyType({})) -> None:
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
