"""The rows of a file after some operations. A row is made when it is asked for, by the operations that touch it;
nothing is copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from studio.data.editing.operations import Add, Delete, Fix, Replace, Set
from studio.data.editing.rows import Rows

Step = Set | Delete | Add | Replace | Fix


class State:
    """steps: the operations that were done, in order; undone: those that can be done again, the next one last."""

    def __init__(self, base: Rows, steps: list[Step], undone: list[Step] | None = None, revision: int = 0):
        self.base, self.steps, self.undone, self.revision = base, [], undone or [], revision
        self.added: dict[int, int] = {}  # row -> the step that added it
        self.edits_by_row: dict[int, list[int]] = {}  # row -> the steps that name it
        self.replaces: list[int] = []
        self.deleted: set[int] = set()
        self.added_after: dict[int, list[int]] = {}  # row -> those added right behind it
        for step in steps:
            self.apply(step)

    def apply(self, step: Step) -> None:
        """Do one more. Not with a state that others look at."""
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
            for row in [step.row] if isinstance(step, Set) else step.rows or ():
                self.edits_by_row.setdefault(row, []).append(n)

    @cached_property
    def order(self) -> np.ndarray:
        """The numbers of the rows that there are, in order."""
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
            yield (one := stack.pop())
            stack += self.added_after.get(one, [])[::-1]

    def exists(self, row: int) -> bool:
        return (1 <= row <= len(self.base) or row in self.added) and row not in self.deleted

    def changed(self, row: int) -> bool:
        """Whether a step may have made something else of the row than stands in the file."""
        return row in self.edits_by_row or row in self.added or bool(self.replaces)

    def value(self, row: int) -> Any:
        """The row as it stands now; None for one that is no data."""
        begun = self.added.get(row)
        value = self.base.value(row) if begun is None else self.steps[begun].value
        for n in sorted([*self.edits_by_row.get(row, ()), *(n for n in self.replaces if begun is None or n > begun)]):
            value = self.steps[n].apply(value)
        return value

    def broken(self, row: int) -> bool:
        """Whether the row is no data still: what stands in the file could not be read, and nobody wrote it anew."""
        written = any(isinstance(self.steps[n], Set) and not self.steps[n].path for n in self.edits_by_row.get(row, ()))
        return row in self.base.broken and not written

    def counts(self) -> dict[str, int]:
        """What was done: cells, deleted, added, replaced and mended (rows), replacements (places)."""
        told: Counter[str] = Counter()
        cells = {(step.row, tuple(step.path)) for step in self.steps if isinstance(step, Set)}
        told["cells"], told["added"] = len(cells), len(self.added)
        told["deleted"] = len(self.deleted)
        for step in self.steps:
            if isinstance(step, Replace):
                told["replaced"] += step.rows
                told["replacements"] += step.matches
            if isinstance(step, Fix) and step.way == "mend":
                told["mended"] += len(step.rows or ())
        return {kind: count for kind, count in told.items() if count}
