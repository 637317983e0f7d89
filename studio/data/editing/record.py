"""The record of how a file was made by editing: kept in the home, found by the file's hash, whatever its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from studio.home import subfolder


def record_of(path: Path) -> dict[str, Any] | None:
    """The record of an edited file; None where it was not made by editing, or was changed since."""
    try:
        size = path.stat().st_size
        candidates = list((subfolder("edits") / "saved").glob(f"*-{size}.json"))
        if not candidates or not path.is_file():
            return None
        with open(path, "rb") as file:
            record_file = record_path(hashlib.file_digest(file, "sha256").hexdigest(), size)
        return json.loads(record_file.read_text(encoding="utf-8")) if record_file in candidates else None
    except (OSError, ValueError):  # not there, no path at all, or spoilt by hand
        return None


def record_path(sha256: str, size: int) -> Path:
    """The path of the record of a file with this content."""
    folder = subfolder("edits") / "saved"
    folder.mkdir(exist_ok=True)
    return folder / f"{sha256}-{size}.json"


def edit_summary(record: dict[str, Any]) -> dict[str, Any]:
    """A record in short: {"from", "counts", "text"}; text: "edited from rows.jsonl: 3 cells, 2 rows deleted"."""
    origin = record["from"]["source"]
    return {
        "from": origin,
        "counts": record["counts"],
        "text": f"edited from {origin}: {describe_counts(record['counts'])}",
    }


def describe_counts(counts: dict[str, int]) -> str:
    """The changes in words: "3 cells, 2 rows deleted"."""
    phrases = {
        "cells": ("cell", "cells"),
        "deleted": ("row deleted", "rows deleted"),
        "added": ("row added", "rows added"),
        "replacements": ("place replaced", "places replaced"),
        "mended": ("row mended", "rows mended"),
    }
    return ", ".join(
        f"{counts[kind]:,} {one if counts[kind] == 1 else more}"
        for kind, (one, more) in phrases.items()
        if counts.get(kind)
    )
