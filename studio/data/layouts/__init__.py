"""Layouts: the other ways in which people write the rows of a format. One file each; touch nothing else to add one.

A layout rewrites a row into the columns that a format knows; everything after that is the format's. It is a module with
  TITLE                 for the reader: "Gemini contents"
  KEYS                  columns of which a row must have one to be looked at; None for any row
  TEXTS                 optional: True where a row of texts alone may be written this way
  ORDER                 the lower is asked first (default 50)
  NAME                  optional: its column that becomes `messages`, so that a problem names the column of the file
  match(row)            the columns it is written in, falsy where the row is not written this way
  rewrite(row, columns, report)  -> the row for the format, or None when it cannot be trained on; columns: what match
                           returned; what is wrong is passed to report(kind, field, value, reason)
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.roles import MESSAGE_COLUMNS

OBJECTS = frozenset((list, dict))
TURNS = frozenset(MESSAGE_COLUMNS)


@lru_cache(maxsize=1)
def layouts() -> dict[str, ModuleType]:
    """name -> module, in the order in which they are asked."""
    modules = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    modules = {name: module for name, module in modules.items() if hasattr(module, "rewrite")}
    return dict(sorted(modules.items(), key=lambda item: getattr(item[1], "ORDER", 50)))


@lru_cache(maxsize=4096)
def possible(columns: tuple[str, ...], texts: bool) -> tuple[ModuleType, ...]:
    """The layouts that a row with these columns may have. texts: it holds neither lists nor objects."""
    keyed = (m for m in layouts().values() if m.KEYS is None or not m.KEYS.isdisjoint(columns))
    return tuple(m for m in keyed if not texts or getattr(m, "TEXTS", False))


@lru_cache(maxsize=4096)
def turns_alone(columns: tuple[str, ...]) -> str | None:
    """The one column of turns, where no layout has a key among the others; else None."""
    names = TURNS.intersection(columns)
    keyed = any(m.KEYS and not m.KEYS.isdisjoint({*columns} - names) for m in layouts().values())
    return min(names) if len(names) == 1 and not keyed else None


def matching(row: Row) -> tuple[ModuleType, Any] | None:
    """(the layout that the row is written in, what its `match` found); None where it is none, or a format's own."""
    for module in possible(tuple(row), OBJECTS.isdisjoint(map(type, row.values()))):
        if columns := module.match(row):
            return module, columns
    return None


def rewritten(row: Any, report: ReportProblem) -> Any:
    """The row in the columns a format knows. None when it cannot be trained on, which has then been reported.

    A layout may leave a row that another one reads on (an object around pairs of questions and answers).
    """
    if not isinstance(row, dict):
        return row
    for _ in range(4):
        if (found := matching(row)) is None:
            return row
        module, columns = found
        row = module.rewrite(row, columns, _renamed(report, getattr(module, "NAME", None)))
        if row is None:
            return None
    return row


def _renamed(report: ReportProblem, name: str | None) -> ReportProblem:
    """`report`, with the layout's own column in place of `messages`."""
    if name is None:
        return report

    def report_renamed(kind: str, field: str | None = None, value: Any = "", reason: str = "") -> None:
        if field and field.startswith("messages"):
            field = name + field.removeprefix("messages")
        report(kind, field, value, reason)

    return report_renamed
