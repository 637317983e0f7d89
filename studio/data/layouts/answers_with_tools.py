"""A question, its answer and the tools at hand in columns: {"query", "answers": [{"name", "arguments"}], "tools"}."""

from __future__ import annotations

import json
from typing import Any

from studio.data.formats import ReportProblem, Row, alpaca
from studio.data.formats.history import HISTORY, history_of
from studio.data.formats.prompt import COLUMNS
from studio.data.roles import MESSAGE_COLUMNS
from studio.data.tracked_row import without
from studio.text import tool_calls

TITLE = "questions and answers with tools, as in xLAM"
KEYS = frozenset(("tools", "functions"))
ANSWERS = (*COLUMNS["answer"], "answers", "calls", "tool_calls", "function_calls", "function_call")
ORDER = 70


def match(row: Row) -> tuple[str, str] | None:
    """The columns of question and answer."""
    if any(name in row for name in (*MESSAGE_COLUMNS, "chosen")):
        return None
    if not any(tool_calls.tools_of(row.get(name)) for name in KEYS):
        return None
    question = next((name for name in COLUMNS["prompt"] if isinstance(row.get(name), str) and row[name].strip()), None)
    answer = next((name for name in ANSWERS if row.get(name) and name != question), None)
    return (question, answer) if question and answer else None


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    question, answer = match(row)
    asked, answered = row[question], row[answer]
    if question == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        asked = f"{asked}\n{row['input']}"
    history = next((name for name in HISTORY if row.get(name)), None)
    before = history_of(row[history], report, history) if history else []
    if before is None:
        return None
    if not isinstance(answered, str) and not tool_calls.calls_of(answered):
        report("wrong_type", answer, answered, "The answer must be text, or calls with name and arguments.")
        return None
    turn: dict[str, Any] = {"role": "assistant", "content": answered}
    if not isinstance(answered, str):
        turn = {"role": "assistant", "content": json.dumps(answered, ensure_ascii=False)}
    rest = without(row, question, answer, history, "input" if alpaca.fits(row) else None)
    return rest | {"messages": [*before, {"role": "user", "content": asked}, turn]}
