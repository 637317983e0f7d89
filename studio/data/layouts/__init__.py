"""Layouts: the other ways in which people write the rows of a format. A file may hold several; touch nothing else to
add one.

A layout rewrites a row into the columns that a format knows; everything after that is the format's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from studio.data.formats import ReportProblem, Row
from studio.data.roles import MESSAGE_COLUMNS

OBJECTS = frozenset((list, dict))
TURNS = frozenset(MESSAGE_COLUMNS)


class Layout(NamedTuple):
    """An entry of LAYOUTS in a file of this folder.

    title: for the reader, "Gemini contents". match(row): the columns it is written in, falsy for other rows.
    rewrite(row, columns, report): the row for the format, or None when it cannot be trained on, which is then reported;
    columns: what match returned. keys: columns of which a row must have one to be looked at; None for any row.
    order: the lower is asked first. texts: whether a row of texts alone may be written this way. column: the one that
    becomes `messages`, so that a problem names the column of the file.
    """

    title: str
    match: Callable[[Row], Any]
    rewrite: Callable[[Row, Any, ReportProblem], Row | None]
    keys: frozenset[str] | None
    order: int = 50
    texts: bool = False
    column: str = "messages"


@lru_cache(maxsize=1)
def layouts() -> list[Layout]:
    """All there are, in the order in which they are asked."""
    modules = (importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__))
    return sorted((layout for module in modules for layout in module.LAYOUTS), key=lambda layout: layout.order)


@lru_cache(maxsize=4096)
def possible(columns: tuple[str, ...], texts: bool) -> tuple[Layout, ...]:
    """The layouts that a row with these columns may have. texts: it holds neither lists nor objects."""
    keyed = (layout for layout in layouts() if layout.keys is None or not layout.keys.isdisjoint(columns))
    return tuple(layout for layout in keyed if layout.texts or not texts)


@lru_cache(maxsize=4096)
def turns_alone(columns: tuple[str, ...]) -> str | None:
    """The one column of turns, where no layout has a key among the others; else None."""
    names = TURNS.intersection(columns)
    keyed = any(layout.keys and not layout.keys.isdisjoint({*columns} - names) for layout in layouts())
    return min(names) if len(names) == 1 and not keyed else None


def matching(row: Row) -> tuple[Layout, Any] | None:
    """(the layout that the row is written in, what its `match` found); None where it is none, or a format's own."""
    for layout in possible(tuple(row), OBJECTS.isdisjoint(map(type, row.values()))):
        if columns := layout.match(row):
            return layout, columns
    return None


def rewritten(row: Any, report: ReportProblem) -> Any:
    """The row in the columns a format knows. None when it cannot be trained on, which has then been reported.

    A layout may leave a row that another one reads on (an object around pairs of questions and answers).
    """
    for _ in range(4):
        if not isinstance(row, dict) or (found := matching(row)) is None:
            return row
        layout, columns = found

        def renamed(
            kind: str, field: str | None = None, value: Any = "", reason: str = "", to: str = layout.column
        ) -> None:
            if field and field.startswith("messages"):
                field = to + field.removeprefix("messages")
            report(kind, field, value, reason)

        row = layout.rewrite(row, columns, report if layout.column == "messages" else renamed)
    return row
