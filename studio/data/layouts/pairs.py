"""A list of {question, answer} objects: [{"human": "…", "assistant": "…"}, …]."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.history import pair_keys, pair_of
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "pairs of question and answer"
KEYS = frozenset(MESSAGE_COLUMNS)


def match(row: Row) -> str | None:
    """The column that holds the conversation."""
    if "chosen" in row and "rejected" in row:  # whole conversations, which a comparison reads
        return None
    return next(
        (n for n in MESSAGE_COLUMNS if isinstance(row.get(n), list) and row[n] and all(map(_is_pair, row[n][:8]))), None
    )


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, dict) and pair_keys(tuple(turn)) is not None


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    for n, pair in enumerate(row[name]):
        keys = pair_keys(tuple(pair)) if isinstance(pair, dict) else None
        if keys is None:
            return report(
                "wrong_type",
                f"{name}[{n}]",
                pair,
                "Every entry must hold a question and its answer, as the first one does.",
            )
        pair_turns = pair_of(pair, keys, report, f"{name}[{n}]")
        if pair_turns is None:
            return None
        turns += pair_turns
    return row | {name: turns}
