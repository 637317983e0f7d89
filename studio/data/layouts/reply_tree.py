"""A tree of replies, as Open Assistant exports it: {"prompt": {"text", "role", "replies": [{…}, …]}}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import is_turn

TITLE = "a tree of replies, of which those ranked best are read"
NAMES = ("prompt", "root", "tree", "thread", "conversation")
REPLIES = ("replies", "children")
KEYS = frozenset(NAMES)


def match(row: Row) -> str | None:
    """The column that holds the first turn."""
    return next(
        (n for n in NAMES if is_turn(row.get(n)) and any(isinstance(row[n].get(k), list) for k in REPLIES)), None
    )


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns, node = [], row[name]
    while node is not None:
        turns.append(without(node, *REPLIES))
        replies = next((node[key] for key in REPLIES if isinstance(node.get(key), list)), [])
        node = min((reply for reply in replies if is_turn(reply)), key=_rank, default=None)
    return without(row, name) | {"messages": turns}


def _rank(reply: dict[str, Any]) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, (int, float)) and not isinstance(rank, bool) else float("inf")
