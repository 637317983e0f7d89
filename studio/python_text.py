"""Python's own syntax, read by one thread at a time.

Before 3.11.8 CPython counts the depth of the tree it builds for all threads together, and raises SystemError where two
build one at once (python/cpython#106905).
"""

from __future__ import annotations

import ast
import inspect
from textwrap import dedent
from threading import RLock
from typing import Any

_lock = RLock()


def parse(text: str) -> ast.Module:
    """As ast.parse."""
    with _lock:
        return ast.parse(text)


def literal(text: str) -> Any:
    """The value of a literal, as ast.literal_eval gives it of a text."""
    with _lock:
        return ast.literal_eval(text)


def class_body(kind: type) -> list[ast.stmt]:
    """The statements of a class, from its source; inspect looks for it in the tree of its whole file."""
    with _lock:
        found = ast.parse(dedent(inspect.getsource(kind))).body[0]
    return found.body if isinstance(found, ast.ClassDef) else []
