"""Plain text: one column, learnt as it stands, with no question and no answer."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, named
from studio.data.formats.fields import text
from studio.text.marks import turns_in

TITLE = "Plain text"
ABOUT = "Text to continue, with no turns. Train on: all."
ORDER = 90
COLUMNS = {"text": ("text", "content", "document", "body")}


def fits(row: Row) -> bool:
    name = named(COLUMNS, row, "text")
    return name is not None and not isinstance(row[name], (dict, list))


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    name = named(COLUMNS, row, "text") or "text"
    content = text(row, name, report)
    if content is None:
        return None
    if turns_in(content):
        report("marked_turns", name, content)
    return {"messages": [], "text": content}
