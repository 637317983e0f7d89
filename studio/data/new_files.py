"""Data files that the studio writes among the uploads: kept answers, pairs, pasted rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio import json_text
from studio.errors import DataError
from studio.home import changing, inside, numbered, slug, subfolder, write_atomic


def new_file(rows: Iterable[dict[str, Any]], name: str) -> Path:
    """Write rows as a data file, uploads/NAME.jsonl or NAME-2.jsonl, …, or return the one that says the same."""
    return new_text(json_text.lines(rows), name, "jsonl")


def new_text(text: str, name: str, ending: str) -> Path:
    """As new_file, of a text as it stands."""
    folder = subfolder("uploads")
    with changing(folder / name):
        for file in numbered(folder, name, f".{ending}"):
            if not file.exists():
                write_atomic(file, text)
            if file.read_text(encoding="utf-8") == text:
                return file
    raise DataError(f"There are too many files named {name}.{ending}.", "Remove some of them.", "name")


def append_rows(rows: Iterable[dict[str, Any]], name: str = "from-chat") -> Path:
    """Append training rows to the data file uploads/NAME.jsonl and return its path."""
    file = inside(subfolder("uploads"), slug(name, "from-chat").removesuffix(".jsonl") + ".jsonl")
    with changing(file):
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        write_atomic(file, before + json_text.lines(rows))
    return file
