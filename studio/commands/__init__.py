"""The terminal: one module a group of commands. Each has add(parsers, common) and is found by looking into this folder.

A command sets `run`, a function of the parsed arguments that returns a JSON-able answer, and may set `show`, which
prints that answer for people. Raise StudioError for a refused order (exit 2), Failed(answer) for a job that failed
(exit 1).
"""

from __future__ import annotations

from typing import Any


class Failed(Exception):
    """The job ran and failed; the answer is printed all the same, the exit status is 1."""

    def __init__(self, answer: Any):
        super().__init__(str(answer))
        self.answer = answer
