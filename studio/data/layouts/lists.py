"""Turns as lists of two: [["user", "…"], ["assistant", "…"]], or pairs [[question, answer], …].

text-generation-webui keeps its chats as such pairs under `internal`; the character speaks first.
"""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.history import pair_of
from studio.data.formats.messages import role_of
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "turns as lists of two"
COLUMNS = (*MESSAGE_COLUMNS, "internal")
KEYS = frozenset(COLUMNS)
BEGIN = "<|BEGIN-VISIBLE-CHAT|>"


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    return next((n for n in COLUMNS if isinstance(row.get(n), list) and row[n] and all(map(_is_two, row[n]))), None)


def _is_two(turn: Any) -> bool:
    return isinstance(turn, (list, tuple)) and len(turn) == 2 and isinstance(turn[0], str)


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    named = all(role_of(turn[0]) for turn in row[name])
    for n, turn in enumerate(row[name]):
        pair_turns = [{"role": turn[0], "content": turn[1]}] if named else pair_of(turn, (0, 1), report, f"{name}[{n}]")
        if pair_turns is None:
            return None
        turns += [turn for turn in pair_turns if turn["content"] != BEGIN]
    return without(row, name, "visible") | {"messages" if name == "internal" else name: turns}
