"""A conversation inside an object: {"body": {"messages": […]}}, {"conversation": {"turns": […]}}."""

from __future__ import annotations

from studio.data.formats import ReportProblem, Row
from studio.data.formats.messages import MESSAGE_COLUMNS
from studio.data.tracked_row import without

TITLE = "messages inside an object"
KEYS = frozenset(
    ("body", "data", "example", "sample", "record", "request", "payload", "item", "json", *MESSAGE_COLUMNS)
)
ANSWERS = frozenset(("response", "output", "chosen", "rejected", "preferred_output"))
ORDER = 60


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    if any(isinstance(row.get(n), list) for n in MESSAGE_COLUMNS) or not ANSWERS.isdisjoint(row):
        return None
    names = [
        name
        for name, value in row.items()
        if name in KEYS and isinstance(value, dict)
        if any(isinstance(value.get(column), list) and value[column] for column in MESSAGE_COLUMNS)
    ]
    return names[0] if len(names) == 1 else None


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    name = match(row)
    return without(row, name) | row[name]
