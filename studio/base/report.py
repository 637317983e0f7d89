"""Report: how long work on a model's files reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]  # what is going on, bytes done, bytes in all (0: unknown)


def silent(what: str, done: int, total: int) -> None:
    """A Report that says nothing."""
