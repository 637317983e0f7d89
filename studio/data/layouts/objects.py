"""Question and answer inside objects: {"input": {"messages": […]}, "output": {"role", "content"}}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.messages import is_turn
from studio.data.roles import MESSAGE_COLUMNS

TITLE = "question and answer inside objects"
PAIRS = (
    *(("input", "output"), ("inputs", "outputs"), ("prompt", "response"), ("prompt", "completion")),
    *(("question", "answer"), ("request", "response"), ("instruction", "output"), ("query", "response")),
)
KEYS = frozenset(question for question, _ in PAIRS)
TEXTS_IN = ("text", "content", "value", "message", "input", "output", "question", "answer", "prompt", "query",
            "completion", "response", "instruction")  # fmt: skip
ORDER = 80


def match(row: Row) -> tuple[str, str] | None:
    """The columns of question and answer: both are objects with a text, or one is an object with turns."""
    for question, answer in PAIRS:
        values = (row.get(question), row.get(answer))
        inner = [_inner(value) for value in values]
        objects = [isinstance(value, dict) for value in values]
        if None not in inner and any(objects) and (all(objects) or any(isinstance(value, list) for value in inner)):
            return question, answer
    return None


def _inner(value: Any) -> Any:
    """The text of an object with one text, or its turns; None for other objects."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(map(is_turn, value))):
        return value
    if not isinstance(value, dict):
        return None
    if is_turn(value):
        return [value]
    turns = next((value[name] for name in MESSAGE_COLUMNS if isinstance(value.get(name), list)), None)
    if turns and all(map(is_turn, turns)):
        return turns
    texts = [text for name, text in value.items() if name in TEXTS_IN and isinstance(text, str) and text.strip()]
    others = [inner for name, inner in value.items() if name not in TEXTS_IN and isinstance(inner, (str, list, dict))]
    return texts[0] if len(texts) == 1 and not others else None


def rewrite(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    question, answer = columns
    tools = row[question].get("tools") if isinstance(row[question], dict) else None
    asked, answered = _inner(row[question]), _inner(row[answer])
    rest = without(row, question, answer) | ({"tools": tools} if tools else {})
    if isinstance(asked, str) and isinstance(answered, str):
        return rest | {"prompt": asked, "completion": answered}
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    turns = [*turns, *([{"role": "assistant", "content": answered}] if isinstance(answered, str) else answered)]
    return rest | {"messages": turns}
