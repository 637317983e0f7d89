"""The rows of a file after some operations. A row is computed on access; nothing is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from studio.data.editing.cell_operations import CellOperation, Set
from studio.data.editing.operations import Add, Delete, Fix, Replace, Step
from studio.data.editing.rows import Rows


class State:
    """steps: the operations in effect, in order. undone: those that can be redone, the next one last."""

    def __init__(self, base: Rows, steps: list[Step], undone: list[Step] | None = None, revision: int = 0):
        self.base, self.revision = base, revision
        self.steps, self.undone = [], undone or []
        self.added: dict[int, int] = {}  # row -> the step that added it
        self.edits_by_row: dict[int, list[int]] = {}  # row -> the steps that name it
        self.replaces: list[int] = []
        self.deleted: set[int] = set()
        self.added_after: dict[int, list[int]] = {}  # row -> those added right behind it
        for step in steps:
            self.apply(step)

    def apply(self, step: Step) -> None:
        """Append a step. Only on a state that is not shared."""
        n = len(self.steps)
        self.steps.append(step)
        self.__dict__.pop("order", None)
        if isinstance(step, Replace):
            self.replaces.append(n)
        elif isinstance(step, Add):
            row = len(self.base) + len(self.added) + 1
            self.added[row] = n
            self.added_after.setdefault(step.after, []).insert(0, row)
        elif isinstance(step, Delete) or (isinstance(step, Fix) and step.way == "delete"):
            self.deleted.update(step.rows or ())
        else:
            for row in [step.row] if isinstance(step, CellOperation) else step.rows or ():
                self.edits_by_row.setdefault(row, []).append(n)

    @cached_property
    def order(self) -> np.ndarray:
        """The numbers of the existing rows, in order."""
        base = np.arange(1, len(self.base) + 1)
        places = [
            (row, new) for row in sorted(self.added_after) if row <= len(self.base) for new in self._following(row)
        ]
        order = np.insert(base, [place for place, _ in places], [new for _, new in places]) if places else base
        return order[~np.isin(order, np.fromiter(self.deleted, np.int64, len(self.deleted)))] if self.deleted else order

    def _following(self, row: int) -> Iterator[int]:
        """The rows that were added behind a row, and behind those, in order."""
        stack = self.added_after.get(row, [])[::-1]
        while stack:
            yield (row_added := stack.pop())
            stack += self.added_after.get(row_added, [])[::-1]

    def exists(self, row: int) -> bool:
        return (1 <= row <= len(self.base) or row in self.added) and row not in self.deleted

    def changed(self, row: int) -> bool:
        """Whether a step may have changed the row."""
        return row in self.edits_by_row or row in self.added or bool(self.replaces)

    def value(self, row: int) -> Any:
        """The current value of the row; None where it could not be parsed."""
        added_by = self.added.get(row)
        value = self.base.value(row) if added_by is None else self.steps[added_by].value
        for n in sorted(
            [*self.edits_by_row.get(row, ()), *(n for n in self.replaces if added_by is None or n > added_by)]
        ):
            value = self.steps[n].apply(value)
        return value

    def shown(self, row: int) -> Any:
        """The current value of the row; of one that could not be parsed, its text."""
        return self.base.broken[row][1] if self.broken(row) else self.value(row)

    def broken(self, row: int) -> bool:
        """Whether the row could not be parsed and was not rewritten since."""
        written = any(isinstance(self.steps[n], Set) and not self.steps[n].path for n in self.edits_by_row.get(row, ()))
        return row in self.base.broken and not written

    def counts(self) -> dict[str, int]:
        """Counts of changes: cells; deleted, added, replaced and fixed rows; replacements (matches)."""
        counts: Counter[str] = Counter()
        cells = {(step.row, tuple(step.path)) for step in self.steps if isinstance(step, CellOperation)}
        counts["cells"], counts["added"] = len(cells), len(self.added)
        counts["deleted"] = len(self.deleted)
        for step in self.steps:
            if isinstance(step, Replace):
                counts["replaced"] += step.rows
                counts["replacements"] += step.matches
            if isinstance(step, Fix) and step.way == "mend":
                counts["mended"] += len(step.rows or ())
        return {kind: count for kind, count in counts.items() if count}
