"""ChatML as messages: a list of {"role", "content"}, as OpenAI writes it; tools and system turns are kept."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.fields import SYSTEM
from studio.data.formats.messages import gather, list_column
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS
from studio.text.tool_calls import DECLARED

TITLE = "ChatML messages"
ABOUT = "A conversation a row: messages with role and content, as OpenAI writes them."
ORDER = 30
ROLES = [key for key in ROLE_KEYS if key != "from"]  # with `from` it is ShareGPT
COLUMNS = {"messages": MESSAGE_COLUMNS, "tools": DECLARED, "system": SYSTEM}
TURN_KEYS = ("role", "content")


def fits(row: Row) -> bool:
    name = list_column(row)
    return name is not None and any(isinstance(m, dict) and any(key in m for key in ROLES) for m in row[name])


def convert(row: Row, report: ReportProblem, plain: list[dict[str, Any]] | None = None) -> dict[str, Any] | None:
    return gather(row, report, *TURN_KEYS, plain)
