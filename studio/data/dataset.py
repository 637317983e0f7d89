"""Dataset: a read file. Its conversations (Arrow, memory-mapped), its format, and the problems found."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from studio.data.arrow_buffers import numbers, numbers_of
from studio.data.chunk import from_row
from studio.data.formats import formats
from studio.data.problem import KINDS, Problem
from studio.errors import DataError

Conversation = dict[str, Any]
DEFAULTS = {"refused": "drop", "cut": "keep", "suspicious": "keep"}


class Conversations(Sequence[Conversation]):
    """The usable rows of a data set, read lazily from Arrow; a selection of them copies nothing."""

    def __init__(self, table: pa.Table, order: np.ndarray | None = None):
        """order: the rows of the table to use, in order; None for all."""
        self._table, self._indices = table, order

    def __len__(self) -> int:
        return self._table.num_rows if self._indices is None else len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        table_row = index if self._indices is None else int(self._indices[index])
        part = bisect_right(self._batch_starts, table_row) - 1
        return from_row(self._batches[part].slice(table_row - self._batch_starts[part], 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Conversation]:
        for start in range(0, len(self), 1000):
            yield from self.batch(start, 1000)

    def batch(self, start: int, count: int) -> list[Conversation]:
        """`count` conversations from `start` on."""
        whole = self._indices is None
        table = self._table.slice(start, count) if whole else self._take(self._indices[start : start + count])
        return list(map(from_row, table.to_pylist()))

    def take(self, indices: Any) -> Conversations:
        """These rows only, in this order."""
        indices = np.asarray(indices, np.int64)
        return Conversations(self._table, indices if self._indices is None else self._indices[indices])

    def without(self, rows: set[int]) -> Conversations:
        """All but those with these row numbers."""
        dropped_rows = np.isin(self.row_numbers, np.fromiter(rows, np.int64, len(rows)))
        return self.take(np.flatnonzero(~dropped_rows)) if dropped_rows.any() else self

    @property
    def rows(self) -> list[int]:
        """The row number in the file of every conversation."""
        return self.row_numbers.tolist()

    @property
    def row_numbers(self) -> np.ndarray:
        """The row number in the file of every conversation (int64)."""
        rows = numbers_of(self._table.column("row"))
        return rows if self._indices is None else rows[self._indices]

    @property
    def table(self) -> pa.Table:
        """All conversations in one table; a copy where they are a selection."""
        return self._table if self._indices is None else self._take(self._indices)

    def sizes(self, of: Callable[[pa.ListArray], np.ndarray]) -> np.ndarray:
        """A number for each conversation; of(messages) computes it for one chunk of the column."""
        sizes = np.concatenate([np.empty(0, np.int64), *(of(part) for part in self._table.column("messages").chunks)])
        return sizes if self._indices is None else sizes[self._indices]

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return self._table.to_batches()

    @cached_property
    def _batch_starts(self) -> list[int]:
        """The first row of each part."""
        return np.cumsum([0, *(part.num_rows for part in self._batches[:-1])]).tolist()

    def _take(self, table_rows: np.ndarray) -> pa.Table:
        """These rows of the table. Arrow's own take would first join the parts, and overflow beyond 2 GB of text."""
        of = np.searchsorted(self._batch_starts, table_rows, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(table_rows)]
        batches = []
        for a, b in zip(edges, edges[1:]) if len(table_rows) else ():
            batches.append(self._batches[of[a]].take(numbers(table_rows[a:b] - self._batch_starts[of[a]])))
        return pa.Table.from_batches(batches, self._table.schema)


@dataclass(frozen=True)
class Selection:
    """The conversations after the user's decisions, and the rows that were dropped: {kind: [row numbers]}."""

    conversations: Conversations
    dropped: dict[str, list[int]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(rows) for kind, rows in self.dropped.items()}


@dataclass(frozen=True)
class Dataset:
    """A read source.

    rows: number of its rows, usable or not. conversations: those that can be rendered. problems: of each kind at most
    MAX_DETAILED_PER_KIND a part; by_kind: the numbers of all rows of a kind. fingerprint: of the content and of how it
    was read. reason: why this format; unsure: why the user should check it, or "". unused: columns, and keys of turns,
    that the format does not read. notes: what was repaired, grouped or left out, in sentences. exact, endings: hashes
    of each conversation (chunk.py).
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
        rows = [rows for kind, rows in self.by_kind.items() if KINDS[kind].severity == "refused"]
        return len(np.unique(np.concatenate(rows))) if rows else 0

    @property
    def stage(self) -> str:
        """Which kind of training can use it: "sft" or "preference"."""
        return getattr(formats()[self.format], "STAGE", "sft")

    @property
    def examples(self) -> str:
        """What its rows are to a stage: "answers", "pairs" or "verdicts" (stage.EXAMPLES)."""
        return getattr(formats()[self.format], "EXAMPLES", "answers")

    def decide(self, decisions: dict[str, str] | None = None) -> Selection:
        """Apply drop, keep or stop per kind; unnamed kinds: refused rows are dropped, the others kept.

        A row that could not be read at all is gone whatever is decided, and is recorded. Raises DataError for an
        unknown kind or decision, and where the decision is to stop and there are such rows.
        """
        decisions = decisions or {}
        for kind, decision in decisions.items():
            if kind not in KINDS:
                hint = f"The kinds are: {', '.join(KINDS)}."
                raise DataError(f"There is no kind of problem named {kind!r}.", hint, "data.problems")
            if decision not in ("drop", "keep", "stop"):
                raise DataError(f"{decision!r} is no decision.", "Decide drop, keep or stop.", f"data.problems.{kind}")
        dropped: dict[str, list[int]] = {}
        present = self.conversations.row_numbers
        for kind, rows in self.by_kind.items():
            decision = decisions.get(kind, DEFAULTS[KINDS[kind].severity])
            if decision == "stop":
                raise self._stopped(kind, rows)
            dropped_rows = rows if decision == "drop" else rows[~np.isin(rows, present)]
            if len(dropped_rows):
                dropped[kind] = dropped_rows.tolist()
        return Selection(self.conversations.without({row for rows in dropped.values() for row in rows}), dropped)

    def _stopped(self, kind: str, rows: np.ndarray) -> DataError:
        p = next(p for p in self.problems if p.kind == kind)
        listed = ", ".join(map(str, rows[:10].tolist())) + (", …" if len(rows) > 10 else "")
        return DataError(
            f"{self.source} has {len(rows)} rows of the kind {kind!r}, and the order says to stop there: "
            f"rows {listed}. {p.reason} Found: {p.value}",
            p.hint,
            f"{self.source}:{p.line or p.row}",
        )


def is_text_beside(dataset: Dataset, datasets: Sequence[Dataset]) -> bool:
    """Whether it holds plain text, of which all is learnt, beside data sets that have answers."""
    return dataset.format == "text" and any(other.format != "text" for other in datasets)
