"""Plain text: one column, learnt as it stands, with no question and no answer."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, named
from studio.data.formats.fields import text

TITLE = "Plain text"
ABOUT = "Text to continue, with no turns. Train on: all."
ORDER = 90
COLUMNS = {"text": ("text", "content", "document", "body")}


def fits(row: Row) -> bool:
    return named(COLUMNS, row, "text") is not None


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    content = text(row, named(COLUMNS, row, "text") or "text", report)
    return None if content is None else {"messages": [], "text": content}
