"""A conversation inside an object: {"body": {"messages": […]}}, {"conversation": {"turns": […]}}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.messages import MESSAGE_COLUMNS
from studio.data.tracked_row import without

TITLE = "messages inside an object"
KEYS = frozenset(
    ("body", "data", "example", "sample", "record", "request", "payload", "item", "json", *MESSAGE_COLUMNS)
)
ANSWERS = frozenset(("response", "output", "chosen", "rejected", "preferred_output"))
ORDER = 60


def _name(row: Row) -> str | None:
    if any(isinstance(row.get(n), list) for n in MESSAGE_COLUMNS) or not ANSWERS.isdisjoint(row):
        return None
    holding = [n for n, value in row.items() if n in KEYS and isinstance(value, dict) and _holds(value)]
    return holding[0] if len(holding) == 1 else None


def _holds(value: dict[str, Any]) -> bool:
    return any(isinstance(value.get(n), list) and value[n] for n in MESSAGE_COLUMNS)


def fits(row: Row) -> bool:
    return _name(row) is not None


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    name = _name(row)
    return without(row, name) | row[name]
