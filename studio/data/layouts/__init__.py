"""Layouts: the other ways in which people write the rows of a format. One file each; touch nothing else to add one.

A layout rewrites a row into the columns that a format knows; everything after that is the format's. It is a module with
  TITLE                 for the reader: "Gemini contents"
  KEYS                  columns of which a row must have one to be looked at; None for any row
  TEXTS                 optional: True where a row of texts alone may be written this way
  ORDER                 the lower is asked first (default 50)
  NAME                  optional: its column that becomes `messages`, so that a problem names the column of the file
  match(row)            what rewrite needs to know (the columns it reads), falsy where the row is not written this way
  rewrite(row, report)  -> the row for the format, or None when it cannot be trained on; what is wrong is passed to
                           report(kind, field, value, reason)
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.roles import MESSAGE_COLUMNS, ROLES
from studio.data.tracked_row import TrackedRow

OBJECTS = frozenset((list, dict, TrackedRow))
TURNS = frozenset(MESSAGE_COLUMNS)


@lru_cache(maxsize=1)
def layouts() -> dict[str, ModuleType]:
    """name -> module, in the order in which they are asked."""
    modules = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    modules = {name: module for name, module in modules.items() if hasattr(module, "rewrite")}
    return dict(sorted(modules.items(), key=lambda item: getattr(item[1], "ORDER", 50)))


@lru_cache(maxsize=4096)
def possible(columns: tuple[str, ...], texts: bool, plain: bool = False) -> tuple[ModuleType, ...]:
    """The layouts that a row with these columns may have.

    texts: it holds neither lists nor objects. plain: its list of turns needs no layout, nor one that any row may have.
    """
    keys = frozenset(columns) - TURNS if plain else frozenset(columns)
    fitting = (m for m in layouts().values() if (not plain if m.KEYS is None else not m.KEYS.isdisjoint(keys)))
    return tuple(m for m in fitting if not texts or getattr(m, "TEXTS", False))


@lru_cache(maxsize=4096)
def turns_column(columns: tuple[str, ...]) -> str | None:
    """The column of the turns; None where there is none, or several."""
    names = [name for name in columns if name in TURNS]
    return names[0] if len(names) == 1 else None


def _is_plain(turns: Any) -> bool:
    """Whether a list holds turns that a format reads as they are: a known role, and a text; the last an answer."""
    if type(turns) is not list or not turns:
        return False
    for turn in turns:
        if type(turn) is not dict:
            return False
        if "role" in turn:
            role, text = turn["role"], turn.get("content")
        else:
            role, text = turn.get("from"), turn.get("value")
        if type(text) is not str or type(role) is not str or role not in ROLES:
            return False
    return ROLES[role] == "assistant"


def layout_of(row: Row) -> ModuleType | None:
    """The layout the row is written in; None where it is none, or a format's own."""
    columns = tuple(row)
    name = turns_column(columns)
    plain = name is not None and _is_plain(dict.get(row, name))
    modules = possible(columns, OBJECTS.isdisjoint(map(type, row.values())), plain)
    if not modules:
        return None
    untracked = dict(row) if isinstance(row, TrackedRow) else row  # what is only looked at is not used by that
    return next((module for module in modules if module.match(untracked)), None)


def rewritten(row: Any, report: ReportProblem) -> Any:
    """The row in the columns a format knows. None when it cannot be trained on, which has then been reported.

    A layout may leave a row that another one reads on (an object around pairs of questions and answers).
    """
    if not isinstance(row, dict):
        return row
    for _ in range(4):
        module = layout_of(row)
        if module is None:
            return row
        row = module.rewrite(row, _renamed(report, getattr(module, "NAME", None)))
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
