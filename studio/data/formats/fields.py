"""Reading one text field of a row, and the checks that go with it."""

from __future__ import annotations

import math
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.passages import plain_text

EXACT = 2.0**53  # from there on a floating point number does not hold every whole number


def text(row: Row, field: str, report: ReportProblem, needed: bool = True) -> str | None:
    """The field's text; None when it cannot be used, which has then been reported. An optional field gives ""."""
    value = row.get(field)
    if type(value) is str and value and not value.isspace():
        return value
    if type(value) is list and len(value) == 1 and isinstance(value[0], str):  # one answer where there could be several
        value = value[0]
        if value.strip():
            return value
    if value is None or value == "" or value == [] or value == {} or isinstance(value, str):
        if not needed:
            return ""
        report(*(("empty_field", field, value) if field in row else ("missing_field", field, list(row))))
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
    reason = f"The field must be text, but it is {kind(value)}."
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        reason += f" To learn the first of its texts, name the column as {field}.0."
    report(
        "wrong_type",
        field,
        value,
        f"{reason} Write the word that is meant: yes, or true." if isinstance(value, bool) else reason,
    )
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


SYSTEM = ("system", "system_prompt", "system_message", "systemPrompt", "systemMessage", "sys_prompt")
_SYSTEM = frozenset(SYSTEM)


def system_of(row: Row, report: ReportProblem) -> str | None:
    """The row's system prompt; "" where it has none. None, and reported, where it is no text."""
    if _SYSTEM.isdisjoint(row):
        return ""
    name = next((name for name in SYSTEM if row.get(name)), None)
    if name is None:
        return ""
    parts = plain_text(row[name], "\n") if isinstance(row[name], (list, dict)) else None
    return text(row, name, report, needed=False) if parts is None else parts.strip()


REASONING = ("reasoning", "reasoning_content", "thinking", "think", "cot", "complex_cot", "chain_of_thought",
             "rationale", "thought", "thoughts", "reasoning_trace", "thinking_trace", "reasoning_steps",
             "thinking_trajectories", "thinking_content", "thought_process", "deepseek_reasoning", "cot_content",
             "reasoning_details", "inner_monologue", "scratchpad", "思考", "思考过程", "推理过程")  # fmt: skip
_REASONING = frozenset(REASONING)


def reasoning_of(holder: Row, report: ReportProblem, where: str = "", but: str = "") -> str | None:
    """The reasoning in a row or a turn, steps in lines; "" for none. None, and reported, where it is no text.

    where: of the holder, before the key. but: a key that is no reasoning here.
    """
    if _REASONING.isdisjoint(holder):
        return ""
    name = next((n for n in REASONING if n != but and holder.get(n) and not isinstance(holder[n], bool)), None)
    if name is None:
        return ""
    words = plain_text(holder[name], "\n")
    if words is None:
        report(
            "wrong_type", f"{where}{name}", holder[name], f"The reasoning must be text, but it is {kind(holder[name])}."
        )
    return words if words is None or words.strip() else ""


def answer_of(row: Row, field: str, report: ReportProblem) -> dict[str, Any] | None:
    """The assistant's turn of a row: the field's text, and the reasoning before it where a column holds some."""
    content, reasoning = text(row, field, report), reasoning_of(row, report, but=field)
    if content is None or reasoning is None:
        return None
    return {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})
