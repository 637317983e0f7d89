"""What was typed in a field of the editor, as the value that is meant: line ends as they stood, JSON, an empty row."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from studio.data.dataset import Dataset
from studio.data.editing.cells import keys_of, turn_lists, value_at
from studio.data.editing.state import State
from studio.data.formats.messages import role_of
from studio.errors import DataError

LINE_END = re.compile(r"\r\n|\r|\n")


def meant(change: dict[str, Any], state: State, dataset: Dataset) -> dict[str, Any]:
    """A change as an operation. In place of its value it may have "typed", a text from a field, or "json"; a row to add
    that has none is an empty one like that before it. Raises DataError.
    """
    operation, change = change.get("op"), dict(change)
    if operation == "replace":
        change.setdefault("skip", dataset.unused)
    elif operation == "add" and "value" not in change:
        row = change.get("after")
        value = state.value(row) if isinstance(row, int) and state.exists(row) and not state.broken(row) else None
        change["value"] = blank_row(value, dataset.columns)
    elif isinstance(text := change.pop("json", None), str):
        change["value"] = json_value(text)
    elif isinstance(text := change.pop("typed", None), str):
        before = _value_before(change, state)
        change["value"] = with_line_ends(text, before) if isinstance(before, str) else text
    return change


def _value_before(change: dict[str, Any], state: State) -> Any:
    """What stands where a change would set a value; None where that is nowhere."""
    row, path = change.get("row"), change.get("path")
    try:
        return value_at(state.value(row), tuple(path)) if state.exists(row) else None  # type: ignore[arg-type]
    except (LookupError, TypeError):  # refused in words by the operation itself
        return None


def with_line_ends(text: str, before: str) -> str:
    """A text from a browser's field (line feeds), with the line ends of the text before it."""
    ends = LINE_END.findall(before)
    if set(ends) <= {"\n"}:
        return text
    lines, lines_before = text.split("\n"), LINE_END.split(before)
    head = len(os.path.commonprefix((lines, lines_before)))
    tail = len(os.path.commonprefix((lines[head:][::-1], lines_before[head:][::-1])))
    count = len(lines) - 1
    tail_ends = min(tail, len(ends), count)  # those in front of the last lines; none stands behind the very last
    first = min(head, len(ends) - tail_ends, count - tail_ends)
    new_ends = ends[:first] + [ends[0]] * (count - first - tail_ends) + ends[len(ends) - tail_ends :]
    result = "".join(line + end for line, end in zip(lines, [*new_ends, ""], strict=True))
    return result if LINE_END.split(result) == lines else text  # a lone CR before a lone LF would be one end


def json_value(text: str) -> Any:
    """The value in a text of JSON, every digit of its numbers kept. Raises DataError that says where it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError("This JSON is nested too deeply.", "Write it with fewer levels.", "value") from None
    except ValueError as error:
        hint = "Correct it there; Esc takes the change back."
        raise DataError(f"This is no JSON: {error}.", hint, "value") from error


def blank_row(value: Any, columns: list[str]) -> dict[str, Any]:
    """A row of the shape of another without its words: of each conversation a question and its answer, both empty."""
    if isinstance(value, list):
        who = keys_of(value)[0]
        return {"conversations" if who == "from" else "messages": _blank_turns(value)}
    if not isinstance(value, dict) or not value:
        return dict.fromkeys(columns or ["instruction", "output"], "")
    texts = {key: "" for key, item in value.items() if isinstance(item, str)}
    return value | texts | {path[0]: _blank_turns(items) for path, items in turn_lists(value)}


def _blank_turns(turns: list[Any]) -> list[Any]:
    role_key, content_key = keys_of(turns)
    talk = [turn[role_key] for turn in turns if role_of(turn.get(role_key)) in ("user", "assistant")]
    return [{role_key: role, content_key: ""} for role in talk[:2]]
