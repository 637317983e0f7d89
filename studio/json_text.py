"""JSON from outside, as plain values of a bounded depth: Python's parser and code that walks values recurse."""

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
    """The value in a JSON file of ours; the fallback where it is missing, damaged, or of another type."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return fallback
    return value if isinstance(value, type(fallback)) else fallback


def check_depth(value: Any, where: str = "The request") -> Any:
    """The value as it is. Raises NestingError where lists and objects are nested more than DEEPEST levels."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise nesting_error(where)
    return value


def nesting_error(where: str) -> NestingError:
    return NestingError(
        f"{where} is nested too deeply, or made of aliases.", "Write every value where it belongs.", where
    )
