"""Turns under ids, as Firebase keeps a list: {"messages": {"-N1": {"role", "text"}, "-N2": …}}."""

from __future__ import annotations

from studio.data.formats import ReportProblem, Row
from studio.data.formats.messages import is_turn
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "turns under ids"
KEYS = frozenset(MESSAGE_COLUMNS)
ORDER = 20


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    return next((n for n in MESSAGE_COLUMNS if isinstance(row.get(n), dict) and _are_turns([*row[n].values()])), None)


def _are_turns(values: list[object]) -> bool:
    return bool(values) and all(is_turn(turn, known=True) for turn in values)


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    return row | {name: list(row[name].values())}
