"""Preference data under other names: preferred_output, chosen_messages, rejected_response, OpenAI's input with messages."""

from __future__ import annotations

from typing import Any

from studio.data.formats import Found, Row
from studio.data.formats.history import history_of
from studio.data.formats.messages import LISTS
from studio.data.watched import without

TITLE = "comparisons under other names"
CHOSEN = ("chosen", "preferred_output", "chosen_messages", "chosen_response", "response_chosen", "answer_chosen", "preferred",
          "preferred_response", "accepted", "accepted_response")  # fmt: skip
REJECTED = ("rejected", "non_preferred_output", "rejected_messages", "rejected_response", "response_rejected", "answer_rejected",
            "non_preferred", "dispreferred", "rejected_output", "non_preferred_response")  # fmt: skip
ANSWERS = ("response", "output", "answer", "completion")
KEYS = frozenset(REJECTED) | {"chosen"}
ASKED = ("prompt", "question", "instruction", "query", "input")


def _names(row: Row) -> tuple[str | None, str | None]:
    worse = next((n for n in REJECTED if n in row), None)
    better = next((n for n in CHOSEN if n in row), None)
    if better is None and worse is not None:  # ms-swift's: the good answer stands where it stands without a bad one
        better = next((n for n in ANSWERS if n in row), None) or next((n for n in LISTS if isinstance(row.get(n), list)), None)
    return better, worse


def fits(row: Row) -> bool:
    better, worse = _names(row)
    if better is None or worse is None or not row[worse]:
        return False
    inside = isinstance(row.get("input"), dict) and isinstance(row["input"].get("messages"), list)
    return (better, worse) != ("chosen", "rejected") or inside or bool(row.get("history"))


def rewrite(row: Row, found: Found) -> Row | None:
    better, worse = _names(row)
    left = without(row, better, worse, "history")
    chosen, rejected = row[better], row[worse]
    if better in LISTS:  # the conversation ends with the good answer
        chosen, left = chosen[-1:], left | {"prompt": chosen[:-1]}
    asked = left.get("input")
    if isinstance(asked, dict) and isinstance(asked.get("messages"), list):
        left = without(left, "input") | {"prompt": asked["messages"]}
        left |= {"tools": asked["tools"]} if asked.get("tools") else {}
    if row.get("history"):
        before = history_of(row["history"], found)
        name = next((n for n in ASKED if isinstance(row.get(n), str)), None)
        if before is None or name is None:
            return None
        left = without(left, name) | {"prompt": [*before, {"role": "user", "content": row[name]}]}
    return left | {"chosen": _inside(chosen), "rejected": _inside(rejected)}


def _inside(value: Any) -> Any:
    """The messages of {"messages": […]}."""
    return value["messages"] if isinstance(value, dict) and isinstance(value.get("messages"), list) else value
