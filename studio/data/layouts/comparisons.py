"""Preference data under other names: preferred_output, chosen_messages, OpenAI's input with messages."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.history import history_of
from studio.data.formats.messages import MESSAGE_COLUMNS, is_turn, turns_of
from studio.data.tracked_row import without

TITLE = "comparisons under other names"
CHOSEN = ("chosen", "preferred_output", "chosen_messages", "chosen_response", "response_chosen", "answer_chosen",
          "preferred", "preferred_response", "accepted", "accepted_response", "response_j")  # fmt: skip
REJECTED = ("rejected", "non_preferred_output", "rejected_messages", "rejected_response", "response_rejected",
            "answer_rejected", "non_preferred", "dispreferred", "rejected_output", "non_preferred_response",
            "response_k")  # fmt: skip
ANSWERS = ("response", "output", "answer", "completion")
TEXTS = True
KEYS = frozenset(REJECTED) | {"chosen"}
ASKED = ("prompt", "question", "instruction", "query", "input")


def _names(row: Row) -> tuple[str | None, str | None]:
    worse = next((n for n in REJECTED if n in row), None)
    better = next((n for n in CHOSEN if n in row), None)
    if better is None and worse is not None:  # ms-swift's: the good answer stands where it stands without a bad one
        better = next((n for n in ANSWERS if n in row), None) or next(
            (n for n in MESSAGE_COLUMNS if isinstance(row.get(n), list)), None
        )
    return better, worse


def fits(row: Row) -> bool:
    better, worse = _names(row)
    if better is None or worse is None or not row[worse]:
        return False
    inside = isinstance(row.get("input"), dict) and isinstance(row["input"].get("messages"), list)
    return (better, worse) != ("chosen", "rejected") or inside or bool(row.get("history")) or _is_whole(row[better])


def _is_whole(value: Any) -> bool:
    """A conversation of several turns, or turns in parts."""
    value = _inside(value)
    return (
        isinstance(value, list)
        and all(map(is_turn, value))
        and (len(value) > 1 or any(isinstance(t.get("content"), list) for t in value))
    )


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    better, worse = _names(row)
    left = without(row, better, worse, "history")
    chosen, rejected = row[better], row[worse]
    if better in MESSAGE_COLUMNS:  # the conversation ends with the good answer
        chosen, left = chosen[-1:], left | {"prompt": chosen[:-1]}
    asked = left.get("input")
    if isinstance(asked, dict) and isinstance(asked.get("messages"), list):
        left = without(left, "input") | {"prompt": asked["messages"]}
        left |= {"tools": asked["tools"]} if asked.get("tools") else {}
    if row.get("history"):
        before = history_of(row["history"], report)
        name = next((n for n in ASKED if isinstance(row.get(n), str)), None)
        if before is None or name is None:
            return None
        left = without(left, name) | {"prompt": [*before, {"role": "user", "content": row[name]}]}
    return _parted(left, _inside(chosen), _inside(rejected), report)


def _parted(left: Row, chosen: Any, rejected: Any, report: ReportProblem) -> Row | None:
    """The turns that both conversations begin with are the prompt; what follows must be one answer each."""
    if not all(isinstance(turns, list) and turns and all(map(is_turn, turns)) for turns in (chosen, rejected)):
        return left | {"chosen": chosen, "rejected": rejected}
    good, bad = (
        turns_of(chosen, report, "chosen", "role", "content"),
        turns_of(rejected, report, "rejected", "role", "content"),
    )
    if good is None or bad is None:
        return None
    same = next((n for n, (a, b) in enumerate(zip(good, bad)) if a != b), min(len(good), len(bad)) - 1)
    if len(good) != same + 1 or len(bad) != same + 1 or good[same]["role"] != "assistant":
        reason = f"The two conversations must be the same up to one last answer. They part at turn {same + 1}."
        report("wrong_type", f"rejected[{min(same, len(bad) - 1)}]", rejected[min(same, len(bad) - 1)], reason)
        return None
    given = left.get("prompt")
    before: list[Any] = given if isinstance(given, list) else []
    if isinstance(given, str) and given.strip() and not same:
        before = [{"role": "user", "content": given}]
    if same and before and turns_of(before, report, "prompt", "role", "content") != good[:same]:
        return left | {"prompt": [*before, *good[:same]], "chosen": good[same:], "rejected": bad[same:]}
    return left | {"prompt": good[:same] if same else before, "chosen": good[same:], "rejected": bad[same:]}


def _inside(value: Any) -> Any:
    """The messages of {"messages": […]}."""
    return value["messages"] if isinstance(value, dict) and isinstance(value.get("messages"), list) else value
