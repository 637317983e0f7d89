"""JSON from outside, as plain values of a bounded depth: Python's parser and much that walks its values recurse, and end in RecursionError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio.errors import OrderError

DEEPEST = 100  # levels of a request or of a model's file: a tool's schema may have twenty


class NestingError(OrderError, ValueError):
    """Nested too deeply. A ValueError too, so that it is told where broken JSON is."""


def read(text: str | bytes, where: str = "The request") -> Any:
    """The values in a JSON text. Raises NestingError, or ValueError where it is not JSON."""
    try:
        return check_depth(json.loads(text), where)
    except RecursionError:
        raise nesting_error(where) from None


def read_or_default(file: Path, fallback: Any) -> Any:
    """What a file of ours holds; the fallback where it is not there yet, spoilt by hand, or of another kind than the fallback."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return fallback
    return found if isinstance(found, type(fallback)) else fallback


def check_depth(value: Any, where: str = "The request") -> Any:
    """The value as it is. Raises NestingError where lists and objects are nested more than DEEPEST levels."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    if level:
        raise nesting_error(where)
    return value


def nesting_error(where: str) -> NestingError:
    return NestingError(
        f"{where} is nested too deeply, or made of aliases.", "Write every value where it belongs.", where
    )
