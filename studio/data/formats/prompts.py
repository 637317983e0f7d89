"""Prompts alone, or with the answer to compare with: what GRPO learns from. Taken where nothing else fits the file."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, named, preference
from studio.data.formats import prompt as two_columns
from studio.data.formats.fields import text

TITLE = "Prompts"
ABOUT = "A question a row, and where there is one the answer that its rewards compare with (GRPO)."
ORDER = 1010
STAGE = "preference"
EXAMPLES = "prompts"
COLUMNS = {
    "prompt": preference.COLUMNS["prompt"],
    "answer": (
        *("reference", "ground_truth", "answer", "solution", "expected", "expected_answer", "final_answer", "target"),
        *(name for name in two_columns.COLUMNS["answer"] if len(name) > 1),
        "label",
    ),
    "system": preference.COLUMNS["system"],
}


def fits(row: Row) -> bool:
    return False


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    turns = preference.prompt_turns(row, report)
    if turns is None:
        return None
    answers = [turns.pop()["content"]] if turns and turns[-1]["role"] == "assistant" else []
    if not turns or turns[-1]["role"] != "user":
        return report("missing_field", "prompt", list(row), "No question stands at the end of the row.")
    name = named(COLUMNS, row, "answer")
    answer = text(row, name, report, needed=False) if name else ""
    if answer is None:
        return None
    reference = answer or "".join(answers)
    return {"messages": turns} | ({"reference": reference} if reference else {})
