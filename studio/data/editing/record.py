"""What a file was made from by editing: a record in the home, found by the file's own fingerprint, whatever the file's
name is now.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from studio.home import subfolder


def record_of(path: Path) -> dict[str, Any] | None:
    """What a file was made from by editing, whatever its name is now; None where it was not, or was changed since."""
    try:
        size = path.stat().st_size
        alike = list((subfolder("edits") / "saved").glob(f"*-{size}.json"))
        if not alike or not path.is_file():
            return None
        with open(path, "rb") as file:
            found = record_path(hashlib.file_digest(file, "sha256").hexdigest(), size)
        return json.loads(found.read_text(encoding="utf-8")) if found in alike else None
    except (OSError, ValueError):  # not there, no path at all, or spoilt by hand
        return None


def record_path(sha256: str, size: int) -> Path:
    """Where the record of a file of this content is kept."""
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
    """What was changed, in words: "3 cells, 2 rows deleted"."""
    words = {
        "cells": "cell",
        "deleted": "row deleted",
        "added": "row added",
        "replacements": "place replaced",
        "mended": "row mended",
    }
    return ", ".join(
        f"{counts[kind]:,} {said if counts[kind] == 1 else _plural(said)}"
        for kind, said in words.items()
        if counts.get(kind)
    )


def _plural(said: str) -> str:
    first, _, rest = said.partition(" ")
    return f"{first}s {rest}".strip()
