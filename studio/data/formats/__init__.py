"""The data formats: one file each, found by looking into this folder. Touch nothing else to add one.

A format is a module with
  TITLE, ABOUT          for the page
  ORDER                 detection asks the lower first: the more special formats
  fits(row) -> bool     optional: does this row (a dict) look like the format? Cheap; asked of the first rows only;
                           without it the format is never detected, and taken where the order names it
  convert(row, report)  -> conversation (a dict with "messages", or "text") or None when the row cannot be trained on;
                           what is wrong is passed to report(kind, field, value, reason)
  TURN_KEYS             optional: the keys of role and content in a turn; convert(row, report, plain) then takes turns
                           that `messages.plain_messages` has read already
  STAGE                 optional: "preference" where only learning from comparisons can use it
  EXAMPLES              optional: what a row is to a stage, "pairs" or "verdicts" (stage.EXAMPLES); else "answers"
  COLUMNS               {part: names it goes by}; a mapping by hand renames a file's columns to the first name of a part
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from studio import python_text

HISTORY = (  # columns of the turns before the question
    *("history", "chat_history", "previous_turns", "past", "past_messages", "previous_messages", "dialogue_history"),
    *("conversation_history", "dialog_history", "chatHistory", "历史", "历史对话", "对话历史"),
)
# columns that hold lists or objects, in a cell as JSON
LIST_COLUMNS = (
    "messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "chat_messages", "chosen",
    "rejected", "tools", *HISTORY, "contents", "mapping", "instances"
)  # fmt: skip
TURN_COLUMNS = ("prompt", "completion", "response")  # columns that may hold a list of turns
NESTED, OPENING = frozenset((*LIST_COLUMNS, *TURN_COLUMNS)), frozenset("[{")
ReportProblem = Callable[..., None]  # report(kind, field=None, value="", reason="")
Row = dict[str, Any]


def without(row: Row, *names: str | None) -> Row:
    """The row, or a turn, without these columns."""
    return {key: value for key, value in row.items() if key not in names}


@lru_cache(maxsize=1)
def formats() -> dict[str, ModuleType]:
    """name -> module, in the order in which detection asks them."""
    modules = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    return dict(sorted(((n, m) for n, m in modules.items() if hasattr(m, "convert")), key=lambda item: item[1].ORDER))


def fitting(row: Row) -> list[str]:
    """The names of the formats that a row looks like, the most special first."""
    return [name for name, form in formats().items() if hasattr(form, "fits") and form.fits(row)]


def named(columns: dict[str, tuple[str, ...]], row: Row, part: str) -> str | None:
    """The column of the row that holds this part, under any of its names."""
    return next((name for name in columns[part] if name in row), None)


@lru_cache(maxsize=4096)
def _nested(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Those columns whose cells may hold JSON."""
    return tuple(NESTED.intersection(columns))


def as_row(value: Any) -> Any:
    """The row as a dict: a list of turns or a text wrapped, JSON in a cell parsed, a Hub viewer's row unwrapped."""
    if isinstance(value, dict):
        if "row" in value and isinstance(value["row"], dict) and not set(value) - {"row", "row_idx", "truncated_cells"}:
            value = value["row"]
        for name in _nested(tuple(value)):
            cell = value[name]
            if (
                isinstance(cell, str)
                and cell[:1] in OPENING
                and (turns := _list(cell, name in TURN_COLUMNS)) is not None
            ):
                value = value | {name: turns}
        return value
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list) and value:
        turns = all(isinstance(turn, dict) for turn in value)
        pairs = all(isinstance(p, list) and len(p) == 2 and all(isinstance(text, str) for text in p) for p in value)
        return {"messages": value} if turns or pairs else value
    return value


def _list(text: str, of_turns: bool) -> Any:
    """The list of objects or lists that a text is, or the object; of_turns: only a list of turns."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _printed(text)
    if isinstance(value, list):
        turns = bool(value) and all(isinstance(item, dict) and {"role", "from"} & set(item) for item in value)
        return value if turns or not of_turns and all(isinstance(item, (dict, list)) for item in value) else None
    return value if isinstance(value, dict) and not of_turns else None


PRINTED = re.compile(
    r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|\}(\s+)(?=\{)|\barray\(|,?\s*dtype=object\)""", re.DOTALL
)


def _printed(text: str) -> Any:
    """A list or object as Python or NumPy prints it; None where it is none."""
    if len(text) > 1_000_000 or not text.rstrip().endswith(("]", "}")):
        return None
    text = PRINTED.sub(lambda match: match[1] or ("}," + match[2] if match[2] else ""), text)
    try:
        return python_text.literal(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
