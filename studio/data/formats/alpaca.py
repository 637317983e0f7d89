"""Alpaca: instruction, input, output; also system and history ([[question, answer], …]).

The question is instruction and input as one text; `split` keeps where one ends and the other begins, because the Alpaca
template prints them apart.
"""

from __future__ import annotations

from typing import Any

from studio.data.formats import Found, Row
from studio.data.formats.fields import text

TITLE = "Alpaca"
ABOUT = "One task a row: instruction, an optional input, and the output to learn."
ORDER = 50
COLUMNS = {
    "prompt": ("instruction",),
    "input": ("input", "context"),
    "answer": ("output", "response", "answer", "completion", "target"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
}


def fits(row: Row) -> bool:
    return "instruction" in row and any(name in row for name in COLUMNS["answer"])


def convert(row: Row, found: Found) -> dict[str, Any] | None:
    output = "output" if "output" in row else next((n for n in COLUMNS["answer"] if n in row), "output")
    given = "input" if "input" in row else "context"
    question, answer = text(row, "instruction", found), text(row, output, found)
    more = text(row, given, found, needed=False) if row.get(given) else ""
    before = _before(row, found)
    if question is None or answer is None or more is None or before is None:
        return None
    asked = {"role": "user", "content": f"{question}\n{more}" if more else question}
    conversation = {"messages": [*before, asked, {"role": "assistant", "content": answer}]}
    return conversation | ({"split": len(question)} if more else {})


def _before(row: Row, found: Found) -> list[dict[str, str]] | None:
    """The system turn and the turns of the history."""
    turns: list[dict[str, str]] = []
    for name in COLUMNS["system"]:
        if row.get(name):
            said = text(row, name, found, needed=False)
            if said is None:
                return None
            turns += [{"role": "system", "content": said}] if said else []
            break
    history = row.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(x, str) and x.strip() for x in pair)):
            found("wrong_type", "history", pair, "The history must be a list of [question, answer] pairs of text.")
            return None
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns
