"""Block: some rows of a file, with their lines and what is broken among them. Lines: such a stretch, not read yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

LONGEST = 64 << 20  # bytes of one line, or characters of one value; what is longer is no row, and would have to be held whole
SIZE = 1 << 20  # bytes read at a time
LINES = 2 << 20  # bytes of lines read together: many enough to be worth the while, few enough for the processor's cache
ROWS = 1000  # rows of a block where a file is not read by bytes


@dataclass
class Block:
    """Rows in file order. lines: where each begins, from 1 (None: the file has no lines). bad: rows that are no data.

    bad: {index in rows: (kind, value, reason)}; such an entry of rows is None. done: bytes of the file read so far.
    """

    rows: list[Any] = field(default_factory=list)
    lines: list[int] | None = field(default_factory=list)
    done: int = 0
    bad: dict[int, tuple[str, Any, str]] = field(default_factory=dict)

    def add(self, row: Any, line: int) -> None:
        self.rows.append(row)
        self.lines.append(line)  # type: ignore[union-attr]

    def spoil(self, line: int, kind: str, value: Any, reason: str) -> None:
        self.bad[len(self.rows)] = (kind, value, reason)
        self.add(None, line)

    @property
    def last(self) -> int:
        """The line in which the last row begins, or 0."""
        return self.lines[-1] if self.lines else 0


@dataclass
class Lines:
    """Whole lines of a JSON Lines file as bytes. first: the number of the first of them, from 1. done: as of a Block."""

    raw: bytes
    first: int
    done: int

    @cached_property
    def last(self) -> int:
        """The number of the last line."""
        breaks = int(np.count_nonzero(np.frombuffer(self.raw, np.uint8) == 10))  # several times as fast as bytes.count
        return self.first + breaks - self.raw.endswith(b"\n")

    def texts(self) -> list[bytes]:
        """Line by line."""
        texts = self.raw.split(b"\n")
        return texts if texts[-1] else texts[:-1]

    def halves(self) -> tuple[Lines, Lines] | None:
        """Two stretches of about the same size, or None for a single line."""
        middle = self.raw.find(b"\n", len(self.raw) // 2) + 1
        if not 0 < middle < len(self.raw):
            middle = self.raw.rfind(b"\n", 0, len(self.raw) // 2) + 1
        if not middle:
            return None
        head = self.raw[:middle]
        return Lines(head, self.first, self.done), Lines(self.raw[middle:], self.first + head.count(b"\n"), self.done)
