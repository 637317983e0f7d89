"""The rows of a file after some operations. Rows are made when they are asked for, by the operations that touch them; nothing is copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from studio.data.editing.operations import Add, Delete, Fix, Replace, Set
from studio.data.editing.rows import Rows

Step = Set | Delete | Add | Replace | Fix


class State:
    """The rows of a file after the operations of its log. Rows are made when they are asked for; nothing here changes.

    order: the numbers of the rows that there are, in order. steps: the operations; undone: those that can be done again.
    """

    def __init__(self, base: Rows, steps: list[Step], undone: list[Step] | None = None, revision: int = 0):
        self.base, self.steps, self.undone, self.revision = base, steps, undone or [], revision
        self.added: dict[int, int] = {}  # row -> the step that added it
        self.touched: dict[int, list[int]] = {}  # row -> the steps that name it
        self.replaces: list[int] = []
        self.gone: set[int] = set()
        behind: dict[int, list[int]] = {}
        for n, step in enumerate(steps):
            self._note(n, step, behind)
        self.order = self._ordered(behind)

    def _note(self, n: int, step: Step, behind: dict[int, list[int]]) -> None:
        if isinstance(step, Replace):
            self.replaces.append(n)
        elif isinstance(step, Add):
            row = len(self.base) + len(self.added) + 1
            self.added[row] = n
            behind.setdefault(step.after, []).insert(0, row)
        elif isinstance(step, Delete) or (isinstance(step, Fix) and step.way == "delete"):
            self.gone.update(step.rows or ())
        else:
            for row in [step.row] if isinstance(step, Set) else step.rows or ():
                self.touched.setdefault(row, []).append(n)

    def _ordered(self, behind: dict[int, list[int]]) -> np.ndarray:
        def family(row: int) -> Iterable[int]:
            stack = behind.get(row, [])[::-1]
            while stack:
                yield (one := stack.pop())
                stack += behind.get(one, [])[::-1]

        base = np.arange(1, len(self.base) + 1)
        places = [(row, new) for row in sorted(behind) if row <= len(self.base) for new in family(row)]
        order = np.insert(base, [place for place, _ in places], [new for _, new in places]) if places else base
        return order[~np.isin(order, np.fromiter(self.gone, np.int64, len(self.gone)))] if self.gone else order

    def there(self, row: int) -> bool:
        return (1 <= row <= len(self.base) or row in self.added) and row not in self.gone

    def changed(self, row: int) -> bool:
        """Whether a step may have made something else of the row than stands in the file."""
        return row in self.touched or row in self.added or bool(self.replaces)

    def value(self, row: int) -> Any:
        """The row as it stands now; None for one that is no data."""
        begun = self.added.get(row)
        value = self.base.value(row) if begun is None else self.steps[begun].value
        for n in sorted([*self.touched.get(row, ()), *(n for n in self.replaces if begun is None or n > begun)]):
            value = self.steps[n].apply(value)
        return value

    def broken(self, row: int) -> bool:
        """Whether the row is no data still: what stands in the file could not be read, and nobody wrote it anew."""
        written = any(isinstance(self.steps[n], Set) and not self.steps[n].path for n in self.touched.get(row, ()))
        return row in self.base.broken and not written

    def counts(self) -> dict[str, int]:
        """What was done: cells, deleted, added, replaced and mended (rows), replacements (places)."""
        told: Counter[str] = Counter()
        cells = {(step.row, tuple(step.path)) for step in self.steps if isinstance(step, Set)}
        told["cells"], told["added"] = len(cells), len(self.added)
        told["deleted"] = len(self.gone)
        for step in self.steps:
            if isinstance(step, Replace):
                told["replaced"] += step.rows
                told["replacements"] += step.matches
            if isinstance(step, Fix) and step.way == "mend":
                told["mended"] += len(step.rows or ())
        return {kind: count for kind, count in told.items() if count}
