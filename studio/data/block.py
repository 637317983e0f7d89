"""Block: some rows of a file, with their lines and what is broken among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_ROW_BYTES = 64 << 20  # bytes of one line, or characters of one value: it has to be held whole
READ_BYTES = 1 << 20  # bytes read at a time
LINES_BYTES = 1 << 20  # bytes of lines read together
ROWS_PER_BLOCK = 1000  # rows of a block where a file is not read by bytes


@dataclass
class Block:
    """Rows in file order.

    lines: the line at which each row begins, from 1; None: the file has no lines. bad: {index in rows: (kind, value,
    reason)} of rows that are no data, which are None. flagged: {index in rows: kind of problem} of rows that the file
    itself sets apart. done: bytes of the file read so far. last: the last line read,
    blank ones too, where the file is read by lines. notes: what was repaired or left out, in sentences.
    """

    rows: list[Any] = field(default_factory=list)
    lines: list[int] | None = field(default_factory=list)
    done: int = 0
    last: int = 0
    bad: dict[int, tuple[str, Any, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    flagged: dict[int, str] = field(default_factory=dict)

    def add(self, row: Any, line: int) -> None:
        self.rows.append(row)
        self.lines.append(line)  # type: ignore[union-attr]

    def first(self, count: int) -> Block:
        """The block with its first `count` rows."""
        if len(self.rows) <= count:
            return self
        bad = {n: why for n, why in self.bad.items() if n < count}
        flagged = {n: kind for n, kind in self.flagged.items() if n < count}
        return Block(
            self.rows[:count], self.lines and self.lines[:count], self.done, self.last, bad, self.notes, flagged
        )

    def add_bad(self, line: int, kind: str, value: Any, reason: str) -> None:
        self.bad[len(self.rows)] = (kind, value, reason)
        self.add(None, line)
