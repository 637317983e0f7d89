"""Alpaca: instruction, input, output; also system and history ([[question, answer], …]).

The question is instruction and input as one text; `split` keeps where one ends and the other begins, because the Alpaca
template prints them apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.fields import REASONING, answer_of, text
from studio.data.formats.history import HISTORY, history_of

TITLE = "Alpaca"
ABOUT = "One task a row: instruction, an optional input, and the output to learn."
ORDER = 50
COLUMNS = {
    "prompt": ("instruction",),
    "input": ("input", "context"),
    "answer": ("output", "response", "answer", "completion", "target"),
    "system": ("system", "system_prompt"),
    "history": HISTORY,
    "reasoning": REASONING,
}
MORE = frozenset((*COLUMNS["system"], *HISTORY, *REASONING))


def fits(row: Row) -> bool:
    return "instruction" in row and any(name in row for name in COLUMNS["answer"])


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    output, input_column, has_more = _columns(tuple(row))
    input_text = text(row, input_column, report, needed=False) if row.get(input_column) else ""
    if input_text and not row.get("instruction", " "):  # the whole task stands in the input
        instruction, input_text = input_text, ""
    else:
        instruction = text(row, "instruction", report)
    before: list[dict[str, str]] | None = []
    if has_more:
        answer, before = answer_of(row, output, report), _before(row, report)
    else:
        content = text(row, output, report)
        answer = content and {"role": "assistant", "content": content}
    if instruction is None or answer is None or input_text is None or before is None:
        return None
    question = {"role": "user", "content": f"{instruction}\n{input_text}" if input_text else instruction}
    conversation = {"messages": [*before, question, answer]}
    if input_text:
        conversation["split"] = len(instruction)
    return conversation


@lru_cache(maxsize=4096)
def _columns(names: tuple[str, ...]) -> tuple[str, str, bool]:
    """(answer column, input column, whether a column of system, history or reasoning is present)."""
    output = next((name for name in COLUMNS["answer"] if name in names), "output")
    return output, "input" if "input" in names else "context", not MORE.isdisjoint(names)


def _before(row: Row, report: ReportProblem) -> list[dict[str, str]] | None:
    """The system turn and the turns of the history."""
    turns: list[dict[str, str]] = []
    for name in COLUMNS["system"]:
        if row.get(name):
            system = text(row, name, report, needed=False)
            if system is None:
                return None
            turns += [{"role": "system", "content": system}] if system else []
            break
    for name in HISTORY:
        if row.get(name):
            before = history_of(row[name], report, name)
            return None if before is None else turns + before
    return turns
