"""Hints on lists of turns whose keys or roles nobody knows, and what they lack; each mapping is tried on the rows."""

from __future__ import annotations

from types import NoneType
from typing import Any

from studio.data.column_names import listed, options
from studio.data.converter import Converter
from studio.data.formats import Row, formats
from studio.data.formats.messages import are_turns, role_of
from studio.data.mapping import format_of
from studio.data.problem import KINDS
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS


def works(mapping: dict[str, str], rows: list[Row]) -> bool:
    """Whether at least 9 of 10 of the first rows are usable with the mapping."""
    return converted(Converter(formats()[format_of(mapping) or "alpaca"], mapping), rows)


def converted(convert: Converter, rows: list[Row]) -> bool:
    """Whether at least 9 of 10 of the first rows are usable with the converter."""
    refused: list[str] = []

    def report(kind: str, *_: Any) -> None:
        if KINDS[kind].severity == "refused":
            refused.append(kind)

    usable = 0
    for row in rows[:50]:
        refused.clear()
        usable += convert(row, report) is not None and not refused
    return usable * 10 >= 9 * len(rows[:50]) and usable > 0


def prompts_hint(rows: list[Row]) -> str:
    """That rows without answers can be learnt from by a model that answers itself; "" where they cannot."""
    usable = converted(Converter(formats()["prompts"], None), rows)
    return " Stage grpo, whose model answers itself, takes the rows as they are." if usable else ""


def turn_keys(rows: list[Row], column: str) -> tuple[str, str] | None:
    """(the key that says who speaks, the key that says what), of a column that holds lists of objects."""
    turns = [turn for row in rows[:20] if isinstance(row.get(column), list) for turn in row[column]]
    if len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        return None
    names = [name for name in turns[0] if all(isinstance(turn.get(name), (str, NoneType)) for turn in turns)]
    role_key = next((name for name in names if all(role_of(turn.get(name)) for turn in turns)), None)
    said = {name: [turn.get(name) or "" for turn in turns] for name in names if name != role_key}
    content_key = next((name for name, texts in said.items() if any(" " in t or len(t) > 20 for t in texts)), None)
    return (role_key, content_key) if role_key and content_key else None


def turns_hint(columns: list[str], rows: list[Row]) -> str:
    """How to name a list of turns whose roles have another name; "" where there is none."""
    for column in columns:
        if keys := turn_keys(rows, column):
            mapping = {"messages": column, "role": keys[0], "content": keys[1]}
            if works(mapping, rows):
                return f"Say which column holds the turns: {options(mapping)}."
    return ""


def conversation_hint(columns: list[str], rows: list[Row]) -> str:
    """What a list that could be a conversation lacks; "" where there is none."""
    for column in columns:
        first = next((row[column] for row in rows if isinstance(row.get(column), list) and row[column]), None)
        if first and column in MESSAGE_COLUMNS and len(first) == 1 and isinstance(first[0], str):
            return f"{column} holds one text a row: add its answer behind it."
        if first is None or not isinstance(first[0], dict):
            continue
        known = are_turns(first, known=True)
        if known and not any(role_of(turn[key]) == "assistant" for turn in first for key in ROLE_KEYS if key in turn):
            return (
                f"{column} holds turns, and none of them is the assistant's: add the answers as turns with the "
                f"role assistant.{prompts_hint(rows)}"
            )
        if column in MESSAGE_COLUMNS:
            return (
                f"{column}[0] holds {listed(list(first[0]))}: write every turn with role and content, or "
                "every pair with user and assistant."
            )
    return ""


def speakers_hint(rows: list[Row], kind: str) -> str:
    """Who of the speakers in lists of turns asks and who answers; "" where that is not sure."""
    lists = [value for row in rows for value in row.values() if isinstance(value, list)]
    turns = [turn for value in lists for turn in value if isinstance(turn, dict)]
    speakers = [turn[key] for turn in turns for key in ROLE_KEYS if key in turn]
    roles = [s.get("name") if isinstance(s, dict) else s for s in speakers]
    roles = [str(role) for role in roles if isinstance(role, (str, int))]
    names = list(dict.fromkeys(roles))
    foreign = {None, "system"} if kind == "no_assistant" else {None}
    unknown_roles = [name for name in names if role_of(name) in foreign]
    known_roles = {role_of(name) for name in names if name not in unknown_roles}
    missing_roles = [part for part in ("user", "assistant") if part not in known_roles]
    for parts in (missing_roles, missing_roles[::-1]):
        mapping = dict(zip(parts, unknown_roles))
        if mapping and len(unknown_roles) <= len(parts) and works(mapping, rows):
            return f"Rename it; or say who is who: {options(mapping)}."
    return ""
