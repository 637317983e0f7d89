"""Columns named by hand: {"prompt": "frage", "answer": "antwort"}, or an entry of LLaMA-Factory's dataset_info.json."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any

from studio import json_text
from studio.data.dataset_info import ENTRY_KEYS, MEDIA_COLUMNS, is_entry
from studio.data.formats import Row, as_row, kto, without
from studio.data.formats.fields import REASONING
from studio.data.layouts import multiple_choice, two_answers
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS, ROLES
from studio.errors import DataError

# part named by hand -> the column the formats know it by
PARTS = {
    "prompt": "instruction",
    "instruction": "instruction",
    "question": "instruction",
    "input": "input",
    "query": "input",
    "answer": "output",
    "output": "output",
    "response": "output",
    "completion": "output",
    "system": "system",
    "history": "history",
    "messages": "messages",
    "tools": "tools",
    "text": "text",
    "chosen": "chosen",
    "rejected": "rejected",
    "label": "label",
    **dict.fromkeys(REASONING, "reasoning"),
}
REQUIRED_PARTS = frozenset(("instruction", "output", "messages", "text", "chosen", "rejected"))
TAGS = {
    "role": "role_tag",
    "content": "content_tag",
    "user": "user_tag",
    "assistant": "assistant_tag",
    "tool": "observation_tag",
}
LOWERED = "lower_case"  # key of a mapping: columns are known by their names as `lowered` writes them
NOT_COLUMNS = {*TAGS, LOWERED, "format", "use", "first_choice"}  # keys of a mapping that name no column of the row
MISSING = object()
BLANK = f"{string.whitespace}\u00a0\u200b\u2060\ufeff"  # around the names of columns
GAPS = re.compile(r"[\s-]+")  # between their words


def normalized_mapping(mapping: dict[str, Any] | None) -> dict[str, Any] | None:
    """{"columns": {part: column}, "tags": {…}} from either notation. Raises DataError for an unknown part."""
    if not mapping:
        return None
    if is_entry(mapping):
        unknown = set(mapping) - ENTRY_KEYS
        columns, tags = dict(mapping.get("columns") or {}), dict(mapping.get("tags") or {})
        if mapping.get("formatting", "alpaca") == "sharegpt":
            columns.setdefault("messages", "conversations")
            tags = {"role_tag": "from", "content_tag": "value"} | tags
        columns = {part: column for part, column in columns.items() if part not in MEDIA_COLUMNS and column}
    else:
        unknown, columns = set(), {part: column for part, column in mapping.items() if part not in NOT_COLUMNS}
        tags = {TAGS[key]: mapping[key] for key in TAGS if key in mapping}
    unknown |= set(columns) - set(PARTS) - {"kto_tag"}
    if unknown:
        raise DataError(
            f"The mapping names {', '.join(sorted(map(repr, unknown)))}, which no format has.",
            f"The parts are: {', '.join(PARTS)}, and role, content inside messages, user, assistant for who says what.",
            "data.mapping",
        )
    if str(mapping.get("first_choice", 0)) not in ("0", "1"):
        hint = "It must be 0 or 1: the number by which the first of several choices is named."
        raise DataError(f"first_choice is {mapping['first_choice']!r}.", hint, "data.mapping")
    if not all(isinstance(column, str) and column for column in columns.values()):
        hint = "Write it as {prompt: COLUMN, answer: COLUMN}."
        raise DataError("The mapping must name a column for every part.", hint, "data.mapping")
    return {"columns": columns, "tags": tags} if columns or tags else None


def speakers_of(mapping: dict[str, Any] | None) -> list[str]:
    """The names of speakers that a mapping by hand gives a role, where it names no column of turns."""
    normalized = normalized_mapping(mapping) or {"columns": {}, "tags": {}}
    names = [tag for key, tag in normalized["tags"].items() if key not in ("role_tag", "content_tag")]
    return [] if normalized["columns"] else names


def format_of(mapping: dict[str, Any] | None) -> str | None:
    """The format a mapping leads to."""
    normalized = normalized_mapping(mapping)
    if not normalized:
        return None
    parts = {PARTS.get(part, part) for part in normalized["columns"]}
    if {"chosen", "rejected"} <= parts:
        return "preference"
    if parts & {"label", "kto_tag"} and parts & {"instruction", "output", "messages"}:
        return "kto"
    if "messages" in parts or normalized["tags"]:
        return "chatml"
    if parts == {"instruction"} and is_entry(mapping):  # LLaMA-Factory's way to name a text to go on with
        return "text"
    if parts & {"instruction", "output"}:
        return "alpaca"
    return "text" if "text" in parts else None


def renamer(mapping: dict[str, Any] | None) -> Callable[[Any], Any] | None:
    """A function that gives a row the column names its format knows, or None when nothing is renamed."""
    normalized = normalized_mapping(mapping)
    if not normalized:
        return None
    if format_of(mapping) == "text" and "text" not in normalized["columns"]:
        normalized = {"columns": {"text": next(iter(normalized["columns"].values()))}, "tags": {}}
    columns = {PARTS.get(part, "label"): column for part, column in normalized["columns"].items()}
    tags = normalized["tags"]

    def rename(row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        # JSON in a cell is read under the name that says so
        values = ((part, value_at(row, column)) for part, column in columns.items())
        result: Row = as_row({part: value for part, value in values if value is not MISSING})
        if not columns:
            result = row | {}
        lists = result.get(
            "messages", next((row[name] for name in MESSAGE_COLUMNS if isinstance(row.get(name), list)), None)
        )
        if tags and isinstance(lists, list):
            result["messages"] = [_retag(turn, tags) for turn in lists]
        return result

    return rename


def lowered(row: Any) -> Any:
    """A row with the names of its columns in lower case and words parted by _; as it is where two would be one."""
    if not isinstance(row, dict):
        return row
    result = {GAPS.sub("_", str(name).strip(BLANK).lower()): value for name, value in row.items()}
    return row if len(result) < len(row) or result.keys() == row.keys() else result


def value_at(row: Any, column: str) -> Any:
    """What a column holds, or what stands at a path such as answers.text.0, also in JSON text; MISSING for nothing."""
    if isinstance(row, str) and row.lstrip()[:1] in ("[", "{"):
        try:
            row = json_text.read(row)
        except ValueError:
            return MISSING
    if isinstance(row, str) and column == "0":  # one text among lists of texts
        return row
    if isinstance(row, dict) and column in row:
        return row[column]
    if isinstance(row, list):
        name, _, rest = column.partition(".")
        inner = row[int(name)] if name.isdigit() and int(name) < len(row) else MISSING
        return value_at(inner, rest) if rest and inner is not MISSING else inner
    if isinstance(row, dict):
        for end in (n for n, sign in enumerate(column) if sign == "."):  # a name may hold points itself
            if column[:end] in row:
                return value_at(row[column[:end]], column[end + 1 :])
    return MISSING


def _retag(turn: Any, tags: dict[str, str]) -> Any:
    """One turn with the keys role and content, its role spelt our way."""
    if not isinstance(turn, dict):
        return turn
    role_key = tags.get("role_tag") or next((key for key in ROLE_KEYS if key in turn), "role")
    content_key = tags.get("content_tag") or next((key for key in CONTENT_KEYS if key in turn), "content")
    result = without(turn, role_key, content_key)
    if role_key in turn:
        role_names = {
            tags[f"{name}_tag"]: name
            for name in ("user", "assistant", "observation", "function", "system")
            if f"{name}_tag" in tags
        }
        role = turn[role_key]
        if isinstance(role, dict) and "role" not in role:  # an author, as chat programs write them
            role = role.get("name", role)
        known_role = role_names.get(str(role)) if isinstance(role, (str, int)) else None
        result["role"] = "function_call" if known_role == "function" else ROLES.get(known_role, role)
    if content_key in turn:
        result["content"] = turn[content_key]
    return result


def with_first_choice(mapping: dict[str, Any] | None, rows: list[Any]) -> tuple[dict[str, Any] | None, str]:
    """(the mapping with the number of the first choice added where the rows name the right choice by numbers, why that
    number is not sure or "").
    """
    if mapping and multiple_choice.FIRST in mapping:
        return mapping, ""
    rows = [row for row in rows if isinstance(row, dict)]
    first, unsure = multiple_choice.counting(rows)
    first = two_answers.counting(rows) if first is None else first
    return (mapping, "") if first is None else ({**(mapping or {}), multiple_choice.FIRST: first}, unsure)


def with_label_column(mapping: dict[str, Any] | None, rows: list[Any]) -> dict[str, Any] | None:
    """The mapping with the label column of the rows added where it names none, so that bad answers are not trained."""
    columns = (normalized_mapping(mapping) or {"columns": {}})["columns"]
    if not columns or "label" in {PARTS.get(part, "label") for part in columns}:
        return mapping
    labelled = [row for row in rows if isinstance(row, dict) and kto.labelled(row)]
    label = kto.labelled(labelled[0]) if labelled and len(labelled) == len(rows) else None
    if label is None or label in columns.values() or format_of(mapping) not in ("chatml", "alpaca"):
        return mapping
    if "columns" in mapping:
        return {**mapping, "columns": {**columns, "label": label}}
    return {**mapping, "label": label}


def check_columns(mapping: dict[str, Any] | None, columns: list[str], name: str) -> None:
    """Raise DataError when the mapping names a column that the file does not have."""
    normalized = normalized_mapping(mapping) or {"columns": {}}
    for part, column in normalized["columns"].items():
        if not any(f"{column}.".startswith(f"{name}.") for name in columns) and PARTS.get(part, part) in REQUIRED_PARTS:
            hint = f"Its columns are: {', '.join(columns[:20])}."
            raise DataError(f"{name} has no column {column!r}.", hint, "data.mapping")
