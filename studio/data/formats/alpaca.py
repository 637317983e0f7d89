"""Alpaca: instruction, input, output; also system and history ([[question, answer], …]).

The question is instruction and input as one text; `split` keeps where one ends and the other begins, because the Alpaca
template prints them apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from studio.data.formats import HISTORY, ReportProblem, Row
from studio.data.formats.fields import CONTEXT, REASONING, SYSTEM, answer_of, asked_turns, more_text, repeats, text
from studio.data.formats.history import turns_before

TITLE = "Alpaca"
ABOUT = "One task a row: instruction, an optional input, and the output to learn."
ORDER = 50
COLUMNS = {
    "prompt": ("instruction",),
    "input": ("input", "context"),
    "answer": ("output", "response", "answer", "completion", "target"),
    "system": SYSTEM,
    "history": HISTORY,
    "reasoning": REASONING,
}
INPUTS = (*COLUMNS["input"], *(name for name in CONTEXT if name != "context"), "question", "query", "problem")
MORE = frozenset((*SYSTEM, *HISTORY, *REASONING))


def fits(row: Row) -> bool:
    return "instruction" in row and any(name in row for name in COLUMNS["answer"])


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    output, input_columns, has_more = _columns(tuple(row))
    input_text: str | None = ""
    for name in input_columns:
        if row.get(name):
            input_text = _joined(input_text, row, name, report)
            if input_text is None:
                return None
    if input_text and not row.get("instruction", " "):  # the whole task stands in the input
        instruction, input_text = input_text, ""
    else:
        instruction = text(row, "instruction", report)
    before: list[dict[str, str]] | None = []
    if has_more:
        question = f"{instruction}\n{input_text}" if input_text else instruction
        answer, before = answer_of(row, output, report), turns_before(row, report, question)
    else:
        content = text(row, output, report)
        answer = content and {"role": "assistant", "content": content}
    if instruction is None or answer is None or before is None:
        return None
    turns = asked_turns(f"{instruction}\n{input_text}" if input_text else instruction, "instruction", report)
    conversation = {"messages": [*before, *turns, answer]}
    if input_text and len(turns) == 1:
        conversation["split"] = len(instruction)
    return conversation


@lru_cache(maxsize=4096)
def _columns(names: tuple[str, ...]) -> tuple[str, tuple[str, ...], bool]:
    """(answer column, columns of the input, whether a column of system, history or reasoning is present)."""
    output = next((name for name in COLUMNS["answer"] if name in names), "output")
    inputs = tuple(name for name in INPUTS if name in names and name != output)
    return output, inputs, not MORE.isdisjoint(names)


def _joined(input_text: str, row: Row, name: str, report: ReportProblem) -> str | None:
    """The input with what a further column adds to it; None, and reported, where it cannot be used."""
    if name == "input" or isinstance(row[name], (str, int, float)):
        added = text(row, name, report, needed=False)
    else:
        added = more_text(row, name)
    if added is None:
        return None
    if repeats(input_text, added) or (name != "input" and repeats(str(row.get("instruction")), added)):
        return input_text
    return f"{input_text}\n{added}" if input_text else added
