"""Dataset: a read file. Its conversations (Arrow, memory-mapped), its format, and the problems found."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from studio.data.chunk import from_row
from studio.data.formats import formats
from studio.data.problem import KINDS, Problem
from studio.errors import DataError

Conversation = dict[str, Any]
DEFAULTS = {"refused": "drop", "cut": "keep", "suspicious": "keep"}


class Conversations(Sequence[Conversation]):
    """The usable rows of a dataset, read from Arrow when they are asked for; a choice of them copies none."""

    def __init__(self, table: pa.Table, order: np.ndarray | None = None):
        """order: which rows of the table, None for all."""
        self._whole, self._order = table, order

    def __len__(self) -> int:
        return self._whole.num_rows if self._order is None else len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = index if self._order is None else int(self._order[index])
        part = bisect_right(self._begins, place) - 1
        return from_row(self._parts[part].slice(place - self._begins[part], 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Conversation]:
        for start in range(0, len(self), 1000):
            yield from self.batch(start, 1000)

    def batch(self, start: int, count: int) -> list[Conversation]:
        """So many from `start` on."""
        table = (
            self._whole.slice(start, count) if self._order is None else self._chosen(self._order[start : start + count])
        )
        return list(map(from_row, table.to_pylist()))

    def take(self, indices: Any) -> Conversations:
        """These rows only, in this order."""
        wanted = np.asarray(indices, np.int64)
        return Conversations(self._whole, wanted if self._order is None else self._order[wanted])

    def without(self, rows: set[int]) -> Conversations:
        """All but those with these row numbers."""
        gone = np.isin(self.row_numbers, np.fromiter(rows, np.int64, len(rows)))
        return self.take(np.flatnonzero(~gone)) if gone.any() else self

    @property
    def rows(self) -> list[int]:
        """The row number in the file of every conversation."""
        return self.row_numbers.tolist()

    @property
    def row_numbers(self) -> np.ndarray:
        """As `rows`, in an array."""
        parts = [
            np.frombuffer(part.buffers()[1], np.int64, len(part), 8 * part.offset)
            for part in self._whole.column("row").chunks
            if len(part)
        ]
        numbers = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return numbers if self._order is None else numbers[self._order]

    @property
    def table(self) -> pa.Table:
        """All of them in one table; of a choice a copy."""
        return self._whole if self._order is None else self._chosen(self._order)

    def sizes(self, of: Callable[[pa.ListArray], np.ndarray]) -> np.ndarray:
        """A number for each, made by `of` from the messages of many."""
        numbers = np.concatenate([np.empty(0, np.int64), *(of(part) for part in self._whole.column("messages").chunks)])
        return numbers if self._order is None else numbers[self._order]

    @cached_property
    def _parts(self) -> list[pa.RecordBatch]:
        return self._whole.to_batches()

    @cached_property
    def _begins(self) -> list[int]:
        """The first row of each part."""
        return np.cumsum([0, *(part.num_rows for part in self._parts[:-1])]).tolist()

    def _chosen(self, places: np.ndarray) -> pa.Table:
        """These rows of the table. Arrow's own take would first join the parts, which two gigabytes of text do not survive."""
        of = np.searchsorted(self._begins, places, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(places)]
        taken = []
        for a, b in zip(edges, edges[1:]) if len(places) else ():
            local = places[a:b] - self._begins[of[a]]
            taken.append(self._parts[of[a]].take(pa.Array.from_buffers(pa.int64(), b - a, [None, pa.py_buffer(local)])))
        return pa.Table.from_batches(taken, self._whole.schema)


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
    unused: columns, and keys of turns, that nothing is made of. notes: what was mended, gathered or left out on the way, in sentences.
    exact, endings: hashes per conversation (see chunk.py).
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
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    encoding: str = "utf-8"
    by_kind: dict[str, np.ndarray] = field(default_factory=dict)
    exact: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    endings: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

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
                raise DataError(
                    f"There is no kind of problem named {kind!r}.",
                    f"The kinds are: {', '.join(KINDS)}.",
                    "data.problems",
                )
            if decision not in ("drop", "keep", "stop"):
                raise DataError(f"{decision!r} is no decision.", "Decide drop, keep or stop.", f"data.problems.{kind}")
        dropped: dict[str, list[int]] = {}
        present = self.conversations.row_numbers
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
