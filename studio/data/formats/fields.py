"""The texts of a row: a field, the passages of a context, a system prompt in blocks, reasoning in steps."""

from __future__ import annotations

import math
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.text.marks import asked

TEXT_KEYS = (
    *("text", "content", "value", "page_content", "passage", "contents", "body", "snippet", "summary", "thinking"),
    *("reasoning", "parts", "full_text"),
)
EXACT = 2.0**53  # from there on a floating point number does not hold every whole number
CONTEXT = ("context", "contexts", "passage", "passages", "document", "documents", "docs", "article", "paragraph",
           "story", "support", "evidence", "background", "knowledge", "definition", "schema", "premise", "sql_context",
           "retrieved_contexts", "reference_documents", "背景", "上下文", "文档", "材料")  # fmt: skip
_CONTEXT = frozenset(CONTEXT)
REPEATED_CHARACTERS = 20  # of a text that stands in another one: a shorter one may well be a word of it


def plain_text(value: Any, separator: str = "\n\n") -> str | None:
    """The text of a value: a text, an object with one, or HotpotQA's [title, [sentence, …]]; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], list):
            return _titled(value[0], value[1])
        parts = [plain_text(part, separator) for part in value]
        return None if None in parts else separator.join(part for part in parts if part)
    return _text_of_object(value, separator) if isinstance(value, dict) else None


def _text_of_object(value: dict[str, Any], separator: str) -> str | None:
    titles, sentences = value.get("title"), value.get("sentences")
    if isinstance(titles, list) and isinstance(sentences, list) and len(titles) == len(sentences):
        return plain_text([[title, part] for title, part in zip(titles, sentences, strict=True)], separator)
    key = next((name for name in TEXT_KEYS if name in value), None)
    text = None if key is None else plain_text(value[key], separator)
    return f"{titles}\n{text}" if text and isinstance(titles, str) and titles else text


def _titled(title: str, sentences: list[Any]) -> str | None:
    if not all(isinstance(sentence, str) for sentence in sentences):
        return None
    return "\n".join([title, " ".join(sentence.strip() for sentence in sentences)])


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
        return report("nan", field, value)
    if isinstance(value, float) and abs(value) >= EXACT:
        reason = (
            "The number has more digits than a number in JSON keeps when it is read: "
            "write it as text, between quotation marks."
        )
        return report("wrong_type", field, value, reason)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)  # a number in a CSV or JSON cell is a short answer, not a fault
    reason = f"The field must be text, but it is {kind(value)}."
    if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        reason += f" To learn the first of its texts, name the column as {field}.0."
    if isinstance(value, bool):
        reason += " Write the word that is meant: yes, or true."
    return report("wrong_type", field, value, reason)


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
        reason = f"The reasoning must be text, but it is {kind(holder[name])}."
        report("wrong_type", f"{where}{name}", holder[name], reason)
    return words if words is None or words.strip() else ""


def answer_of(row: Row, field: str, report: ReportProblem) -> dict[str, Any] | None:
    """The assistant's turn of a row: the field's text, and the reasoning before it where a column holds some."""
    content, reasoning = text(row, field, report), reasoning_of(row, report, but=field)
    if content is None or reasoning is None:
        return None
    return {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})


def repeats(text: str, part: str) -> bool:
    """Whether a text holds another one already, as a prompt does that was put together from other columns."""
    part = part.strip()
    return part in text if len(part) >= REPEATED_CHARACTERS else part == text.strip()


def more_text(row: Row, name: str) -> str:
    """The text of a column; "" where it holds none."""
    words = plain_text(row.get(name))
    return words if words and words.strip() else ""


def with_context(question: str, row: Row, asked: str) -> str:
    """The question behind what it is asked about. asked: the question's column."""
    if _CONTEXT.isdisjoint(row):
        return question
    before: list[str] = []
    for name in CONTEXT:
        words = more_text(row, name) if name in row and name != asked else ""
        if words and not repeats(question, words) and words not in before:
            before.append(words)
    return "\n\n".join([*before, question])


def asked_turns(question: str, name: str, report: ReportProblem) -> list[dict[str, Any]]:
    """The turns of a question: itself, or those that its marks part, which is then reported; none of them is learnt."""
    turns = asked(question)
    if turns is None:
        return [{"role": "user", "content": question}]
    report("open_prompt", name, question)
    return [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
