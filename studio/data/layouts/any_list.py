"""Turns in a column of any name: {"id": …, "items": [{"from": "human", "value": "…"}, …]}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import is_turn
from studio.data.formats.prompt import COLUMNS
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "turns in a column of another name"
KEYS = None
ORDER = 90
NOT = frozenset(
    ("history", "chosen", "rejected", "tools", "functions", "contents", *MESSAGE_COLUMNS, *COLUMNS["answer"])
)


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    if any(not isinstance(row[name], bool) for name in NOT.intersection(row)):
        return None
    names = [
        name
        for name, value in row.items()
        if type(value) is list and len(value) > 1 and all(is_turn(turn, known=True) for turn in value)
    ]
    return names[0] if len(names) == 1 else None


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    return without(row, name) | {"messages": [*map(_with_words, row[name])]}


def _with_words(turn: dict[str, Any]) -> dict[str, Any]:
    """SWE-agent's system turn, whose words stand beside its content, as others; any other turn as it is."""
    if "role" in turn and turn.get("text") is None and isinstance(turn.get("system_prompt"), str):
        return {"role": turn["role"], "content": turn["system_prompt"]}
    return turn
