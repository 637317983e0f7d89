"""Two columns: prompt and completion, question and answer, and the other names they go by."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, named
from studio.data.formats.fields import REASONING, answer_of, text
from studio.data.formats.history import HISTORY, history_of

TITLE = "Prompt and completion"
ABOUT = "One question and one answer a row, in two columns."
ORDER = 60
COLUMNS = {
    "prompt": (
        "prompt",
        "question",
        "query",
        "user",
        "input",
        "instruction",
        "q",
        "problem",
        "ask",
        "问",
        "问题",
        "提问",
    ),
    "answer": (
        "completion",
        "answer",
        "response",
        "output",
        "assistant",
        "a",
        "solution",
        "reply",
        "target",
        "答",
        "答案",
        "回答",
    ),
    "system": ("system", "system_prompt"),
    "history": HISTORY,
    "reasoning": REASONING,
}


def fits(row: Row) -> bool:
    return named(COLUMNS, row, "prompt") is not None and named(COLUMNS, row, "answer") is not None


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    question = text(row, named(COLUMNS, row, "prompt") or "prompt", report)
    answer = answer_of(row, named(COLUMNS, row, "answer") or "completion", report)
    system = named(COLUMNS, row, "system")
    system_text = text(row, system, report, needed=False) if system else ""
    name = named(COLUMNS, row, "history")
    before = history_of(row[name], report, name) if name else []
    if question is None or answer is None or system_text is None or before is None:
        return None
    messages = [*before, {"role": "user", "content": question}, answer]
    return {"messages": ([{"role": "system", "content": system_text}] if system_text else []) + messages}
