"""A conversation as columns, as `datasets` stores a Sequence: {"from": ["human", "gpt"], "value": ["…", "…"]}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.messages import CONTENT_KEYS, ROLE_KEYS
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "turns as columns"
KEYS = frozenset(MESSAGE_COLUMNS)


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    return next((n for n in MESSAGE_COLUMNS if _is_table(row.get(n))), None)


def _is_table(value: Any) -> bool:
    if not (isinstance(value, dict) and any(k in value for k in ROLE_KEYS) and any(k in value for k in CONTENT_KEYS)):
        return False
    return all(isinstance(v, list) for v in value.values()) and len({len(v) for v in value.values()}) == 1


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    table = row[name]
    return row | {name: [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]}
