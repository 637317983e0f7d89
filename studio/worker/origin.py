"""The adapter of an earlier run in a new one: loaded into the wrapped model before the first step."""

from __future__ import annotations

import json
from typing import Any

from studio.errors import ModelError
from studio.method import cast_trained_to_float32, is_cast_deferred
from studio.origin import copied
from studio.runs import base_record
from studio.worker.context import RunContext


def go_on(context: RunContext, tuned: Any) -> None:
    """Load the adapter in the run's folder into `tuned`. Raises ModelError where the base is another now."""
    config, base, report = context.config, context.folder, context.report
    folder = copied(context.run)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if difference := base_record.difference(manifest, base):
        message = f"The base {base} is not the one that {config.start} was trained on: there differ {difference}."
        hint = "Put the files of then back there (their revision on the Hub, a copy), or train anew on the new ones."
        raise ModelError(message, hint, "model")
    if is_cast_deferred(tuned):
        cast_trained_to_float32(tuned)  # adapters are small: the whole is still laid out layer by layer
    config.method.load_result(tuned, folder)
    report.note(f"Goes on from the adapter of {config.start}, step {manifest['step']}.")
    template = context.encoder.template.name
    if manifest["template"] != template:
        report.note(
            f"{config.start} learnt in the chat template {manifest['template']}, and this run uses {template}.",
            "warning",
            hint=f"Set data.template to {manifest['template']}, unless the change is meant.",
        )
