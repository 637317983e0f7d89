"""TRL's conversational prompt and completion: both are lists of messages."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import is_turn, role_of_turn
from studio.data.formats.prompt import MORE_ANSWERS
from studio.data.layouts.comparisons import REJECTED
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "prompt and completion as lists of messages, as TRL writes them"
PROMPTS = ("prompt", "input", "question", "query", "context", *MESSAGE_COLUMNS)
ANSWERS = ("completion", "response", "output", "answer", "answers", "target", *MORE_ANSWERS)
KEYS = frozenset(PROMPTS)
_ANSWERS = frozenset(ANSWERS)
PREFERENCE = frozenset(("chosen", *REJECTED))


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def match(row: Row) -> tuple[str, str] | None:
    """The columns of prompt and completion."""
    if _ANSWERS.isdisjoint(row) or not PREFERENCE.isdisjoint(row):
        return None
    asked = next((n for n in PROMPTS if _is_turns(row.get(n))), None)
    answers = [n for n in ANSWERS if n in row and n != asked]
    if asked is None or not answers or (asked in MESSAGE_COLUMNS and role_of_turn(row[asked][-1]) == "assistant"):
        return None
    return asked, next((n for n in answers if row[n] not in (None, "")), answers[0])


def rewrite(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    asked, answer = columns
    completion = row[answer]
    if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], str):  # ChatQA's answers
        completion = completion[0]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    elif is_turn(completion):
        completion = [completion]
    if not _is_turns(completion):
        return report(
            "wrong_type" if completion else "empty_field",
            answer,
            completion,
            f"{answer} must be a list of messages, as {asked} is, or a text.",
        )
    rest = without(row, asked, answer, None if asked in MESSAGE_COLUMNS else "messages")
    return rest | {"messages": [*row[asked], *completion]}
