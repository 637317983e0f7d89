"""Reading one text field of a row, and the checks that go with it."""

from __future__ import annotations

import math
from typing import Any

from studio.data.formats import ReportProblem, Row

EXACT = 2.0**53  # from there on a floating point number does not hold every whole number


def text(row: Row, field: str, report: ReportProblem, needed: bool = True) -> str | None:
    """The field's text; None when it cannot be used, which has then been reported. An optional field gives ""."""
    value = row.get(field)
    if type(value) is str and value and not value.isspace():
        return value
    if value is None or value == "" or value == [] or value == {} or isinstance(value, str):
        if not needed:
            return ""
        report("empty_field" if field in row else "missing_field", field, value)
        return None
    if isinstance(value, float) and not math.isfinite(value):
        report("nan", field, value)
        return None
    if isinstance(value, float) and abs(value) >= EXACT:
        report(
            "wrong_type",
            field,
            value,
            "The number has more digits than a number in JSON keeps when it is read: "
            "write it as text, between quotation marks.",
        )
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # a number in a CSV or JSON cell is a short answer, not a fault
    report("wrong_type", field, value, f"The field must be text, but it is {kind(value)}.")
    return None


def kind(value: Any) -> str:
    """The type of a value in the words of JSON."""
    names = {
        dict: "an object",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


REASONING = (
    "reasoning",
    "reasoning_content",
    "thinking",
    "think",
    "cot",
    "complex_cot",
    "chain_of_thought",
    "rationale",
    "thought",
)
_REASONING = frozenset(REASONING)


def answer_of(row: Row, field: str, report: ReportProblem) -> dict[str, Any] | None:
    """The assistant's turn of a row: the field's text, and the reasoning before it where a column holds some."""
    content = text(row, field, report)
    reasoning: str | None = ""
    if not _REASONING.isdisjoint(row):
        columns = (name for name in REASONING if row.get(name) and name != field)
        reasoning = next((text(row, name, report, needed=False) for name in columns), "")
    if content is None or reasoning is None:
        return None
    return {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})
