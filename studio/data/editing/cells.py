"""The editable texts of a row, each with its path from the row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from studio.data.formats.fields import REASONING
from studio.data.formats.messages import are_turns, is_turn
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS
from studio.errors import DataError

Path = tuple[str | int, ...]
MAX_DEPTH = 12  # levels below which no text is looked for
# of a turn: what it is, not what it says
METADATA_KEYS = frozenset((*ROLE_KEYS, "type", "id", "name", "tool_call_id", "mime_type"))
TEXT_KEYS = frozenset((*CONTENT_KEYS, *REASONING))


class Cell(NamedTuple):
    """A text and where it stands. label: its column, or who speaks."""

    path: Path
    label: str
    text: str


def cells(row: Any, skip: frozenset[str] = frozenset(), only: str | None = None) -> Iterator[Cell]:
    """The texts of a row. skip: columns that are left out; only: the one column, or who speaks, that is looked at."""
    if isinstance(row, dict):
        for key, value in row.items():
            if key not in skip:
                yield from (cell for cell in _cells_in(value, (key,), key) if only in (None, key, cell.label))
    else:
        yield from (cell for cell in _cells_in(row, (), "text") if only in (None, cell.label))


def _cells_in(value: Any, path: Path, label: str) -> Iterator[Cell]:
    if isinstance(value, str):
        yield Cell(path, label, value)
    elif len(path) > MAX_DEPTH:
        return
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _cells_in(item, (*path, n), label)
    elif isinstance(value, dict) and is_turn(value):
        speaker = str(next(value[key] for key in ROLE_KEYS if key in value))
        for key in value:
            if key in TEXT_KEYS and key not in METADATA_KEYS:
                yield from _cells_in(value[key], (*path, key), speaker)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in METADATA_KEYS:
                yield from _cells_in(item, (*path, key), label)


def map_texts(
    row: Any, change: Callable[[str], str], skip: frozenset[str] = frozenset(), only: str | None = None
) -> Any:
    """The row with every text changed; the very same object where none is."""
    for path, _, text in list(cells(row, skip, only)):
        new_text = change(text)
        if new_text != text:
            row = replace_at(row, path, new_text)
    return row


def value_at(row: Any, path: Path) -> Any:
    """What stands at a path. Raises LookupError."""
    for key in path:
        in_object = isinstance(row, dict) and isinstance(key, str)
        if not in_object and not (isinstance(row, list) and isinstance(key, int) and key >= 0):
            raise KeyError(key)
        row = row[key]
    return row


def replace_at(row: Any, path: Path, value: Any) -> Any:
    """A copy of the row with another value at a path; the rest is shared. A new key is added last."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(row, dict) and isinstance(key, str):
        if rest and key not in row:
            raise KeyError(key)
        return {**row, key: replace_at(row.get(key), rest, value)}
    if isinstance(row, list) and isinstance(key, int) and 0 <= key < len(row):
        return [*row[:key], replace_at(row[key], rest, value), *row[key + 1 :]]
    raise KeyError(key)


def turn_lists(row: Any) -> list[tuple[Path, list[Any]]]:
    """The lists of turns in a row, with their paths."""
    if isinstance(row, list):
        return [((), row)] if are_turns(row) else []
    if not isinstance(row, dict):
        return []
    return [
        ((key,), value) for key, value in row.items() if are_turns(value) or (key in MESSAGE_COLUMNS and value == [])
    ]


def keys_of(turns: list[Any]) -> tuple[str, str]:
    """(the key that says who speaks, the key that says what) of a list of turns."""
    first = next((turn for turn in turns if isinstance(turn, dict)), {})
    return next((k for k in ROLE_KEYS if k in first), "role"), next((k for k in CONTENT_KEYS if k in first), "content")


def path_text(path: Path) -> str:
    """A path in words: messages[2].content."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".") or "the row"


def check_path(row: Any, path: Path, number: int) -> None:
    """Raise DataError where a path leads nowhere in a row. The last key of an object may be new."""
    try:
        holder = value_at(row, path[:-1]) if path else {}
        if path and not (isinstance(holder, dict) and isinstance(path[-1], str)):
            value_at(holder, path[-1:])
    except LookupError:
        fields = "no fields"
        if isinstance(row, dict):
            fields = ", ".join(map(str, row))[:200]
        elif isinstance(row, list):
            fields = f"a list of {len(row)}"
        hint = "Load the page again, and choose one of its fields."
        raise DataError(f"Row {number} has no field {path_text(path)}; it holds {fields}.", hint, "path") from None
