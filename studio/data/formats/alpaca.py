"""Alpaca: instruction, input, output; also system and history ([[question, answer], …]).

The question is instruction and input as one text; `split` keeps where one ends and the other begins, because the Alpaca
template prints them apart.
"""

from __future__ import annotations

from typing import Any

from studio.data.formats import Found, Row
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
BEFORE = frozenset((*COLUMNS["system"], *HISTORY))


def fits(row: Row) -> bool:
    return "instruction" in row and any(name in row for name in COLUMNS["answer"])


def convert(row: Row, found: Found) -> dict[str, Any] | None:
    output = "output" if "output" in row else next((n for n in COLUMNS["answer"] if n in row), "output")
    given = "input" if "input" in row else "context"
    more = text(row, given, found, needed=False) if row.get(given) else ""
    if more and not row.get("instruction", " "):  # the whole task stands in the input
        question, more = more, ""
    else:
        question = text(row, "instruction", found)
    answer = answer_of(row, output, found)
    before = _before(row, found)
    if question is None or answer is None or more is None or before is None:
        return None
    asked = {"role": "user", "content": f"{question}\n{more}" if more else question}
    conversation = {"messages": [*before, asked, answer]}
    return conversation | ({"split": len(question)} if more else {})


def _before(row: Row, found: Found) -> list[dict[str, str]] | None:
    """The system turn and the turns of the history."""
    turns: list[dict[str, str]] = []
    if BEFORE.isdisjoint(row):
        return turns
    for name in COLUMNS["system"]:
        if row.get(name):
            said = text(row, name, found, needed=False)
            if said is None:
                return None
            turns += [{"role": "system", "content": said}] if said else []
            break
    for name in HISTORY:
        if row.get(name):
            before = history_of(row[name], found, name)
            return None if before is None else turns + before
    return turns
