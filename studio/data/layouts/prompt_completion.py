"""TRL's conversational prompt and completion: both are lists of messages."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.messages import is_turn
from studio.data.tracked_row import without

TITLE = "prompt and completion as lists of messages, as TRL writes them"
PROMPTS = ("prompt", "input", "question", "query", "context")
ANSWERS = ("completion", "response", "output", "answer", "answers")
KEYS = frozenset(PROMPTS)


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def match(row: Row) -> tuple[str, str] | None:
    """The columns of prompt and completion."""
    asked = next((n for n in PROMPTS if _is_turns(row.get(n))), None)
    answer = next((n for n in ANSWERS if n in row and n != asked), None)
    if asked is None or answer is None or "chosen" in row:
        return None
    return asked, answer


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    asked, answer = match(row)
    completion = row[answer]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    elif is_turn(completion):
        completion = [completion]
    if not _is_turns(completion):
        report(
            "wrong_type" if completion else "empty_field",
            answer,
            completion,
            f"{answer} must be a list of messages, as {asked} is, or a text.",
        )
        return None
    rest = without(row, asked, answer, "messages")
    return rest | {"messages": [*row[asked], *completion]}
