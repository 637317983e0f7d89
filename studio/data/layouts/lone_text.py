"""A plain text as a conversation of one turn, as XTuner writes it: {"messages": [{"role": "pretrain", …}]}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS

TITLE = "a text in a turn of its own"
KEYS = frozenset(MESSAGE_COLUMNS)
ROLES = ("pretrain", "text", "plain")


def match(row: Row) -> tuple[str, Any] | None:
    """(the column, the text) of such a row."""
    for name in MESSAGE_COLUMNS:
        turns = row.get(name)
        if (
            isinstance(turns, list)
            and len(turns) == 1
            and isinstance(turns[0], dict)
            and any(turns[0].get(key) in ROLES for key in ROLE_KEYS)
        ):
            return name, next((turns[0][key] for key in CONTENT_KEYS if key in turns[0]), None)
    return None


def rewrite(row: Row, turn: tuple[str, Any], report: ReportProblem) -> Row | None:
    name, text = turn
    return without(row, name) | {"text": text}
