"""Columns that a format does not use: which they are, and the options that would use them where they were meant."""

from __future__ import annotations

from collections import Counter
from typing import Any

from studio.data.column_names import ANSWER_NAMES, options
from studio.data.converter import Converter
from studio.data.formats import as_row, without
from studio.data.formats.fields import CONTEXT, SYSTEM
from studio.data.formats.messages import list_column
from studio.data.formats.prompt import COLUMNS, MORE_ANSWERS, pair_of
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS

ANSWERS = frozenset((*COLUMNS["answer"], *MORE_ANSWERS))
BESIDE_TURNS = (
    *("persona", "personas", "personality", "profile", "character", "bio", "scenario", "instructions", "policy"),
    *CONTEXT,
)
Rows = list[dict[str, Any]]
EMPTY = (None, "", [], {})
MAX_CELLS = 1000  # cells of the first rows that are changed, to see what comes of it
OTHER = "\ufdd0"  # a noncharacter: no text ends with it
READ = frozenset(("channel", "current_node"))  # though only some of their values change what is learnt


def unused_columns(rows: list[Any], convert: Converter) -> list[str]:
    """The columns, and keys of turns such as `messages[].id`, that change nothing of what is learnt: neither when they
    are missing nor when they hold something else. rows: the first ones.
    """
    learnt = [(row, _learnt(convert, row)) for row in map(as_row, rows) if isinstance(row, dict)]
    names = dict.fromkeys(name for row, (conversation, _) in learnt if conversation for name in _names(row))

    limit = max(5, MAX_CELLS // max(1, len(names)))

    def needed(columns: list[str]) -> bool:
        return any(_learnt(convert, without(row, *columns)) != result for row, result in learnt[:limit])

    unused: list[str] = []
    for name in names:
        column, _, key = name.partition("[].")
        holding = [(row, result) for row, result in learnt if row.get(column) not in EMPTY][:limit]
        changed = ((other, result) for row, result in holding for other in _others(row, column, key))
        if column not in unused and all(_learnt(convert, other) == result for other, result in changed):
            unused.append(name)
    if needed(unused):  # of two that say the same, each alone changes nothing
        return [name for name in unused if needed([other for other in unused if other != name])]
    return unused


def _learnt(convert: Converter, row: dict[str, Any]) -> tuple[Any, list[Any]]:
    """(the row's conversation, the problems of which fields)."""
    problems: list[Any] = []
    try:
        return convert(row, lambda kind, field=None, *_: problems.append((kind, field))), problems
    except (LookupError, TypeError, ValueError, AttributeError):  # a format may rely on what `fits` has found in a row
        return None, problems


def _names(row: dict[str, Any]) -> list[str]:
    """The columns of a row that hold anything, and the keys of the turns in them."""
    names = []
    for column, value in _filled_fields(row):
        names.append(column)
        if type(value) is list and all(type(turn) is dict and _is_turn(turn, column) for turn in value):
            names += dict.fromkeys(f"{column}[].{key}" for turn in value for key, _ in _filled_fields(turn))
    return names


def _filled_fields(row: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(str(name), value) for name, value in row.items() if value not in EMPTY and name not in READ]


def _is_turn(turn: dict[str, Any], column: str) -> bool:
    return column in MESSAGE_COLUMNS or any(key in turn for key in ROLE_KEYS)


def _others(row: dict[str, Any], column: str, key: str) -> list[dict[str, Any]]:
    """The row without a column, and with another value in it; with a key, this of the turns in the column."""
    if key and isinstance(row[column], list):
        turns = [_others(turn, key, "") if key in turn else [turn, turn] for turn in row[column]]
        return [row | {column: [*changed]} for changed in zip(*turns, strict=True)]
    value = row[column]
    other: Any = [OTHER] if isinstance(value, (list, dict)) else value
    if isinstance(value, str):
        other = value + OTHER
    elif isinstance(value, (int, float)):
        other = not value if isinstance(value, bool) else 1 - value
    return [without(row, column), row | {column: other}]


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
