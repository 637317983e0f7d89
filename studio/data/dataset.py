"""Dataset: a read file. Its conversations (Arrow, memory-mapped), its format, and the problems found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from studio.data.chunk import from_row
from studio.data.formats import formats
from studio.data.problem import KINDS, Problem
from studio.errors import DataError

Conversation = dict[str, Any]
FEW = 2000  # rows
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

    def take(self, indices: Any) -> Conversations:
        """These rows only, in this order."""
        return Conversations(self.table.take(pa.array(indices, pa.int64())))

    def without(self, rows: set[int]) -> Conversations:
        """All but those with these row numbers. Few are left out without a copy of the others."""
        numbers = self.numbers
        gone = np.flatnonzero(np.isin(numbers, np.fromiter(rows, np.int64, len(rows))))
        if not len(gone):
            return self
        if len(gone) > FEW:
            return self.take(np.delete(np.arange(len(numbers)), gone))
        edges = np.concatenate(([-1], gone, [len(numbers)])).tolist()
        return Conversations(pa.concat_tables([self.table.slice(a + 1, b - a - 1) for a, b in zip(edges, edges[1:])]))

    @property
    def rows(self) -> list[int]:
        """The row number in the file of every conversation."""
        return self.numbers.tolist()

    @property
    def numbers(self) -> np.ndarray:
        """As `rows`, in an array."""
        parts = [np.frombuffer(part.buffers()[1], np.int64, len(part), 8 * part.offset) for part in self.table.column("row").chunks if len(part)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


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
    """rows: how many stand in the source, usable or not; conversations: those that can be rendered at all.

    problems: all of them, but of each kind at most KEPT_PER_KIND a part; by_kind: the numbers of all rows of a kind.
    fingerprint: of the content and of how it was read. reason: why this format; unsure: why a second look is wise, or "".
    exact, loose: hashes per conversation (see repeats.py).
    """

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
    by_kind: dict[str, np.ndarray] = field(default_factory=dict)
    exact: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    loose: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each kind of problem, the most serious kinds first."""
        return {kind: len(self.by_kind[kind]) for kind in KINDS if kind in self.by_kind}

    @property
    def refused(self) -> int:
        """Rows that cannot be trained on as they are."""
        numbers = [rows for kind, rows in self.by_kind.items() if KINDS[kind].severity == "refused"]
        return len(np.unique(np.concatenate(numbers))) if numbers else 0

    @property
    def stage(self) -> str:
        """Which kind of training can use it: "sft" or "preference"."""
        return getattr(formats()[self.format], "STAGE", "sft")

    def decide(self, decisions: dict[str, str] | None = None) -> Selection:
        """Apply drop, keep or stop per kind; unnamed kinds: refused rows are dropped, the others kept.

        A row that could not be read at all is gone whatever is decided, and is recorded. Raises DataError for an unknown
        kind or decision, and where the decision is to stop and there are such rows.
        """
        decisions = decisions or {}
        for kind, decision in decisions.items():
            if kind not in KINDS:
                raise DataError(f"There is no kind of problem named {kind!r}.", f"The kinds are: {', '.join(KINDS)}.", "data.problems")
            if decision not in ("drop", "keep", "stop"):
                raise DataError(f"{decision!r} is no decision.", "Decide drop, keep or stop.", f"data.problems.{kind}")
        dropped: dict[str, list[int]] = {}
        present = self.conversations.numbers
        for kind, rows in self.by_kind.items():
            decision = decisions.get(kind, DEFAULTS[KINDS[kind].severity])
            if decision == "stop":
                raise self._stopped(kind, rows)
            gone = rows if decision == "drop" else rows[~np.isin(rows, present)]
            if len(gone):
                dropped[kind] = gone.tolist()
        return Selection(self.conversations.without({row for rows in dropped.values() for row in rows}), dropped)

    def _stopped(self, kind: str, rows: np.ndarray) -> DataError:
        p = next(p for p in self.problems if p.kind == kind)
        listed = ", ".join(map(str, rows[:10].tolist())) + (", …" if len(rows) > 10 else "")
        return DataError(
            f"{self.source} has {len(rows)} rows of the kind {kind!r}, and the order says to stop there: rows {listed}. {p.reason} Found: {p.value}",
            p.hint,
            f"{self.source}:{p.line or p.row}",
        )
