"""JSON from outside, as plain values of a bounded depth: Python's parser and code that walks values recurse."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable
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


def whole_number(value: Any) -> int:
    """A count from outside: a whole number not below zero that JSON holds exactly; anything else is 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects in a file of ours that has one a line; none where it is missing. A line that a crash cut is left out.

    Lines end with a newline alone: the text in them may hold U+2028 and U+0085, at which str.splitlines divides too.
    """
    try:
        written = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in written:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [value for value in found if isinstance(value, dict)]


def lines(values: Iterable[Any]) -> str:
    """The values as JSON Lines: one on each line."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def append_line(file: Path, value: dict[str, Any]) -> None:
    """Add an object as a whole line; one that a crash or a full disk cut is ended first. Raises OSError."""
    line = lines([value]).encode()
    with open(file, "ab+", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        whole = line if stream.read(1) in (b"", b"\n") else b"\n" + line
        if stream.write(whole) < len(whole):
            stream.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


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
    hint = "Write every value where it belongs."
    return NestingError(f"{where} is nested too deeply, or made of aliases.", hint, where)
