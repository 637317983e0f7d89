"""A question, its answer and the tools at hand in columns: {"query", "answers": [{"name", "arguments"}], "tools"}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import HISTORY, ReportProblem, Row, alpaca, without
from studio.data.formats.history import history_of
from studio.data.formats.prompt import COLUMNS
from studio.data.roles import MESSAGE_COLUMNS
from studio.text import tool_calls

TITLE = "questions and answers with tools, as in xLAM"
TOOLS = tool_calls.DECLARED
CALLS = ("answers", "calls", "tool_calls", "function_calls", "function_call")
KEYS = frozenset((*TOOLS, *CALLS))
ANSWERS = (*COLUMNS["answer"], *CALLS)
ORDER = 70


def match(row: Row) -> tuple[str, str] | None:
    """The columns of question and answer."""
    if any(name in row for name in (*MESSAGE_COLUMNS, "chosen")):
        return None
    question = next((name for name in COLUMNS["prompt"] if isinstance(row.get(name), str) and row[name].strip()), None)
    answer = next((name for name in ANSWERS if row.get(name) and name != question), None)
    if not question or not answer:
        return None
    declared = any(tool_calls.tools_of(row.get(name)) for name in TOOLS)
    return (question, answer) if declared or (answer in CALLS and tool_calls.calls_of(row[answer])) else None


def rewrite(row: Row, columns: tuple[str, str], report: ReportProblem) -> Row | None:
    question, answer = columns
    asked, answered = row[question], row[answer]
    if question == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        asked = f"{asked}\n{row['input']}"
    history = next((name for name in HISTORY if row.get(name)), None)
    before = history_of(row[history], report, history, asked) if history else []
    if before is None:
        return None
    if isinstance(answered, str) and answered.strip() in ("[]", "{}"):
        return report("empty_field", answer, answered, "No function is called and nothing is said.")
    calls = tool_calls.calls_of(answered)
    if not isinstance(answered, str) and not calls:
        return report("wrong_type", answer, answered, "The answer must be text, or calls with name and arguments.")
    turn: dict[str, Any] = {"role": "assistant", "content": answered}
    if not any(row.get(name) for name in TOOLS) or not isinstance(answered, str):
        turn |= {"content": "", "tool_calls": calls} if calls else {}
    rest = without(row, question, answer, history, "input" if alpaca.fits(row) else None)
    return rest | {"messages": [*before, {"role": "user", "content": asked}, turn]}
