"""ShareGPT: conversations of {"from", "value"}, with every spelling of the roles seen in the wild."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.fields import SYSTEM
from studio.data.formats.messages import gather, list_column
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "ShareGPT"
ABOUT = "A conversation a row: turns with from and value (human, gpt, system, …)."
ORDER = 31
COLUMNS = {"messages": ("conversations", *MESSAGE_COLUMNS), "tools": ("tools",), "system": SYSTEM}
TURN_KEYS = ("from", "value")


def fits(row: Row) -> bool:
    name = list_column(row)
    return name is not None and any(isinstance(m, dict) and "from" in m for m in row[name])


def convert(row: Row, report: ReportProblem, plain: list[dict[str, Any]] | None = None) -> dict[str, Any] | None:
    return gather(row, report, *TURN_KEYS, plain)
