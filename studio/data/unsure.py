"""Columns that may have been meant otherwise than they are read: sentences, each with options that read them so."""

from __future__ import annotations

from collections import Counter
from typing import Any

from studio.data.column_names import ANSWER_NAMES
from studio.data.column_options import options
from studio.data.formats import as_row
from studio.data.formats.context import CONTEXT
from studio.data.formats.fields import SYSTEM
from studio.data.formats.messages import list_column
from studio.data.formats.prompt import COLUMNS, MORE_ANSWERS, pair_of

ANSWERS = frozenset((*COLUMNS["answer"], *MORE_ANSWERS))
BESIDE_TURNS = (
    *("persona", "personas", "personality", "profile", "character", "bio", "scenario", "instructions", "policy"),
    *CONTEXT,
)
Rows = list[dict[str, Any]]


def doubts(rows: list[Any], format: str, unused: list[str]) -> list[str]:
    """Sentences on unused columns. rows: the first ones."""
    sample = [row for row in map(as_row, rows) if isinstance(row, dict)]
    if not sample:
        return []
    if format in ("prompt", "alpaca"):
        return _other_answers(sample, unused)
    if format in ("chatml", "sharegpt"):
        return _beside_turns(sample, unused)
    return _unasked(sample, unused) if format == "text" else []


def _filled(sample: Rows, names: list[str], types: tuple[type, ...] = (str,)) -> list[str]:
    """Those of these columns that hold something of these types in most rows."""
    counts = Counter(name for row in sample for name in names if isinstance(row.get(name), types) and row[name])
    return [name for name in names if counts[name] * 2 > len(sample)]


def _words(sample: Rows, name: str) -> int:
    return sum(len(row[name].split()) for row in sample if isinstance(row.get(name), str))


def _other_answers(sample: Rows, unused: list[str]) -> list[str]:
    pair = pair_of(sample[0])
    if not pair:
        return []
    known = ["answer"] if pair[1] == "solution" else []  # read, for rewards to compare with, and not learnt
    longer = [name for name in unused if ANSWER_NAMES.search(name) and _words(sample, name) > _words(sample, pair[1])]
    names = _filled(sample, [*dict.fromkeys([*known, *(name for name in unused if name in ANSWERS), *longer])])
    if not names:
        return []
    asked = {"prompt": pair[0]} | ({"input": "input"} if sample[0].get("input") and pair[0] != "input" else {})
    return [
        f"{', '.join(names)} could be the answer too, and is not learnt. To learn {names[0]}: "
        f"{options({**asked, 'answer': names[0]})}"
    ]


def _beside_turns(sample: Rows, unused: list[str]) -> list[str]:
    names = _filled(sample, [name for name in unused if name in BESIDE_TURNS], (str, list, dict))
    turns = list_column(sample[0])
    if not names or turns is None:
        return []
    words = f"{', '.join(names)} stands beside the turns, and the model does not see it."
    if any(sample[0].get(name) for name in SYSTEM):
        return [words]
    tools = {"tools": "tools"} if "tools" in sample[0] else {}
    return [
        f"{words} To show {names[0]} as the system prompt: {options({'messages': turns, 'system': names[0], **tools})}"
    ]


def _unasked(sample: Rows, unused: list[str]) -> list[str]:
    names = _filled(sample, [name for name in unused if name in COLUMNS["prompt"]])
    text = next((name for name in ("text", "content", "document", "body") if name in sample[0]), None)
    if not names or text is None:
        return []
    return [
        f"{text} is learnt as plain text, without {names[0]}. To learn it as the answer to {names[0]}: "
        f"{options({'prompt': names[0], 'answer': text})}"
    ]
