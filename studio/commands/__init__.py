"""The terminal: one module a group of commands. Each has add(parsers, common) and is found by looking into this folder.
A module called as the command that is given is loaded alone, which saves most of a quick command's time.

A command sets `run`, a function of the parsed arguments that returns a JSON-able answer, and may set `show`, which
prints that answer for people. Raise StudioError for a refused order (exit 2), Failed(answer) for a job that failed
(exit 1).
"""

from __future__ import annotations

from typing import Any

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


class Failed(Exception):
    """The job ran and failed; the answer is printed all the same, the exit status is 1."""

    def __init__(self, answer: Any):
        super().__init__(str(answer))
        self.answer = answer


def size(count: float) -> str:
    """Bytes for people: 6.30 GiB."""
    for unit, name in UNITS:
        if abs(count) >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{int(count)} B"
