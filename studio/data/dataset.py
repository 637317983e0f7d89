"""Dataset: a read file. Its conversations (Arrow, memory-mapped), its format, and the problems found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from studio.data.chunk import from_row
from studio.data.problem import KINDS, Problem
from studio.errors import DataError

Conversation = dict[str, Any]
DEFAULTS = {"refused": "drop", "cut": "keep", "suspicious": "keep"}


class Conversations(Sequence[Conversation]):
    """The usable rows of a dataset, read from Arrow one at a time."""

    def __init__(self, table: pa.Table):
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return from_row(self.table.slice(index, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Conversation]:
        for batch in self.table.to_batches(max_chunksize=1000):
            yield from map(from_row, batch.to_pylist())

    def take(self, indices: Sequence[int]) -> Conversations:
        """These rows only, in this order."""
        return Conversations(self.table.take(pa.array(indices, pa.int64())))

    @property
    def rows(self) -> list[int]:
        """The row number in the file of every conversation."""
        return self.table.column("row").to_pylist()


@dataclass(frozen=True)
class Selection:
    """What is left after the user's decisions, and the record of what is not: {kind: [row numbers]}."""

    conversations: Conversations
    dropped: dict[str, list[int]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(rows) for kind, rows in self.dropped.items()}


@dataclass(frozen=True)
class Dataset:
    """rows: how many stand in the source, usable or not; conversations: the usable ones. fingerprint: of content and reading."""

    source: str
    format: str
    container: str
    rows: int
    conversations: Conversations
    problems: list[Problem]
    fingerprint: str
    columns: list[str] = field(default_factory=list)
    reason: str = ""
    unsure: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each kind of problem."""
        return dict(Counter(p.kind for p in self.problems))

    @property
    def refused(self) -> int:
        """Rows that cannot be trained on as they are."""
        return len({p.row for p in self.problems if p.severity == "refused"})

    def decide(self, decisions: dict[str, str] | None = None) -> Selection:
        """Apply drop, keep or stop per kind; unnamed kinds: refused rows drop, the others stay.

        Raises DataError for an unknown kind, and where the decision is to stop and there are such rows.
        """
        decisions = decisions or {}
        for kind in decisions:
            if kind not in KINDS:
                raise DataError(f"There is no kind of problem named {kind!r}.", f"The kinds are: {', '.join(KINDS)}.", "data.problems")
        dropped: dict[str, list[int]] = {}
        for p in self.problems:
            decision = decisions.get(p.kind, DEFAULTS[p.severity])
            if decision == "stop":
                raise DataError(f"Row {p.row} of {self.source}: {p.reason} Found: {p.value}", p.hint, f"{self.source}:{p.line or p.row}")
            if decision == "drop":
                dropped.setdefault(p.kind, []).append(p.row)
        gone = {row for rows in dropped.values() for row in rows}
        numbers = self.conversations.rows
        kept = self.conversations.take([n for n, row in enumerate(numbers) if row not in gone]) if gone else self.conversations
        return Selection(kept, dropped)
