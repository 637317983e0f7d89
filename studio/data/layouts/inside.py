"""A conversation inside an object: {"body": {"messages": […]}}, {"conversation": {"turns": […]}}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "messages inside an object"
KEYS = frozenset(
    (
        *("body", "data", "example", "sample", "record", "request", "payload", "item", "json", "_source", "doc"),
        *("entry", "log", "trace", "result", "row", "fields", "document", *MESSAGE_COLUMNS),
    )
)
ANSWERS = frozenset(("response", "output", "chosen", "rejected", "preferred_output"))
ORDER = 60
MAX_DEPTH = 4  # objects around a conversation


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    if any(isinstance(row.get(n), list) for n in MESSAGE_COLUMNS) or not ANSWERS.isdisjoint(row):
        return None
    names = [name for name, value in row.items() if name in KEYS and _holder(value)]
    return names[0] if len(names) == 1 else None


def _holder(value: Any, depth: int = 1) -> dict[str, Any] | None:
    """The object that has the list of turns: the value, or the only one inside that has one."""
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        return None
    if any(isinstance(value.get(column), list) and value[column] for column in MESSAGE_COLUMNS):
        return value
    inner = [holder for other in value.values() if (holder := _holder(other, depth + 1))]
    return inner[0] if len(inner) == 1 else None


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    return without(row, name) | _holder(row[name])
