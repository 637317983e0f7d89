"""Finds the rows inside a JSON object that is no row itself."""

from __future__ import annotations

import json
from typing import Any

from studio.data.formats import LIST_COLUMNS, without
from studio.data.formats.messages import are_turns
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS, ROLES

ROW_COLUMNS = ("prompt", "question", "question_stem", "query", "instruction", "problem", "passage", "story", "ideal",
               "completion", "response", "answer", "问题", "答案")  # fmt: skip
NO_CONTAINERS = frozenset(
    (*LIST_COLUMNS, "segments", "responses", "choices", "internal")
)  # columns of a row whose lists are no rows
MAX_DEPTH = 4  # objects around the rows at most


def rows_within(value: Any, depth: int = 0) -> list[Any] | None:
    """The rows in an object; None where it is a row itself, or which of its lists holds the rows is ambiguous.

    {"version": 1, "data": [row, …]}, also deeper; {"data": {"columns": […], "data": [[cell, …], …]}}; columns as
    lists or, as pandas writes them, as {"0": cell, …}; {name: row, …}.
    """
    if rows := _of_ids(value) or _of_corpus(value):
        return rows
    if (
        not isinstance(value, dict)
        or any(name in NO_CONTAINERS or name.lower() in MESSAGE_COLUMNS for name in value)
        or depth > MAX_DEPTH
        or _is_row(value)
    ):
        return None
    return (
        [row for name, row in value.items() if name.startswith("session:") and isinstance(row, dict)]  # Chatbox's
        or _of_instances(value)
        or _split_orient(value)
        or _only_list(value)
        or _column_orient(value)
        or _index_orient(value)
        or _turn_lists(value)
        or _nested_object(value, depth)
    )


def _is_row(value: dict[str, Any]) -> bool:
    """Whether an object that holds lists is a row by itself: it asks or answers something."""
    if any(isinstance(value.get(name), str) for name in ROW_COLUMNS) or "chunkedPrompt" in value:
        return True
    asked = (value[name] for name in ("question", "prompt") if isinstance(value.get(name), dict))
    return any(not key.isdigit() for question in asked for key in question)


def _of_ids(value: Any) -> list[Any] | None:
    """{"conversations": {id: {"messages": …}, …}}, as Firebase keeps lists."""
    inner = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(inner, dict) or not inner or not all(isinstance(row, dict) for row in inner.values()):
        return None
    rows = list(inner.values())
    return rows if all(any(isinstance(row.get(n), (dict, list)) for n in MESSAGE_COLUMNS) for row in rows) else None


def _of_corpus(value: Any) -> list[Any] | None:
    """{"categories": […], "conversations": [[text, text, …], …]}, as ChatterBot's corpora."""
    talks = value.get("conversations") if isinstance(value, dict) and "categories" in value else None
    if not isinstance(talks, list) or not all(isinstance(talk, list) for talk in talks):
        return None
    texts = all(isinstance(text, str) for talk in talks for text in talk)
    return [{"conversation": talk} for talk in talks] if texts else None


def _of_instances(value: dict[str, Any]) -> list[Any] | None:
    """The instances of a task of Natural Instructions, each with the task's definition."""
    definition, instances = value.get("Definition"), value.get("Instances")
    if not definition or not isinstance(instances, list) or not all(isinstance(row, dict) for row in instances):
        return None
    words = "\n".join(definition) if isinstance(definition, list) else definition
    return [{"instruction": words, **row} for row in instances]


def _split_orient(value: dict[str, Any]) -> list[Any] | None:
    """As pandas' to_json(orient="split") writes a table."""
    names, cells = value.get("columns"), value.get("data")
    if isinstance(value.get("values"), list) and "majorDimension" in value:  # Google's Sheets
        names, *cells = value["values"]
    if not (isinstance(names, list) and isinstance(cells, list) and all(isinstance(name, str) for name in names)):
        return None
    whole = all(isinstance(row, list) and len(row) == len(names) for row in cells)
    return [dict(zip(names, row, strict=True)) for row in cells] if whole else None


def _only_list(value: dict[str, Any]) -> list[Any] | None:
    if isinstance(value.get("features"), list) and isinstance(value.get("rows"), list):  # from the Hub's viewer
        return value["rows"]
    lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v[:50])]
    return lists[0] if len(lists) == 1 else None


def _column_orient(value: dict[str, Any]) -> list[Any] | None:
    columns = list(value.values())
    numbered = all(isinstance(c, dict) and c and all(key.isdigit() for key in c) for c in columns)
    if numbered and len(set(map(tuple, columns))) == 1:
        columns = [list(c.values()) for c in columns]
    if len(columns) < 2 or not all(isinstance(c, list) for c in columns) or len(set(map(len, columns))) != 1:
        return None
    if any(isinstance(cell, dict) for c in columns for cell in c[:50]):
        return None  # several lists of rows
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _index_orient(value: dict[str, Any]) -> list[Any] | None:
    rows = list(value.values())
    if len(rows) < 2 or not all(isinstance(row, dict) and row for row in rows) or len(set(map(frozenset, rows))) > 1:
        return None
    if all(_is_row(row) or any(isinstance(row.get(name), list) for name in MESSAGE_COLUMNS) for row in rows):
        return rows
    plain = not any(isinstance(cell, (dict, list)) for row in rows for cell in row.values())
    return rows if plain and len(rows) > 2 and len(rows[0]) > 1 else None


def _turn_lists(value: dict[str, Any]) -> list[Any] | None:
    """{name: [turn, turn, …], …}: a conversation under each name."""
    lists = list(value.values())
    if len(lists) < 2 or not all(are_turns(turns, known=True) and len(turns) > 1 for turns in lists):
        return None
    return [{"messages": turns} for turns in lists]


def _nested_object(value: dict[str, Any], depth: int) -> list[Any] | None:
    if any(isinstance(inner, list) and inner for inner in value.values()):
        return None
    candidates = [rows_within(inner, depth + 1) for inner in value.values() if isinstance(inner, dict)]
    candidates = [rows for rows in candidates if rows]
    return candidates[0] if len(candidates) == 1 else None


def expand_row(row: Any) -> list[Any] | None:
    """The rows inside a row (a list, JSON in a text, Self-Instruct's instances); None where it is a single row."""
    if type(row) is str:
        return _decoded(row)
    if type(row) is list:
        objects = bool(row) and all(isinstance(instance, dict) for instance in row)
        return row if objects and not _is_turn_or_pair(row[0]) else None
    if type(row) is not dict:
        return None
    if questions := _of_paragraphs(row.get("paragraphs")):
        return questions
    instances = row.get("instances")
    if not isinstance(instances, list) or not all(isinstance(each, dict) and "output" in each for each in instances):
        return None
    return [without(row, "instances") | instance for instance in instances] or None


def _of_paragraphs(paragraphs: Any) -> list[Any]:
    """The questions of an article as SQuAD's file has it, each with its context; [] for anything else."""
    if not isinstance(paragraphs, list) or not all(
        isinstance(p, dict) and isinstance(p.get("qas"), list) for p in paragraphs
    ):
        return []
    return [
        {"context": paragraph.get("context"), **question}
        for paragraph in paragraphs
        for question in paragraph["qas"]
        if isinstance(question, dict)
    ]


def _decoded(text: str) -> list[Any] | None:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return expand_row(value) or [value]


def _is_turn_or_pair(first: dict[str, Any]) -> bool:
    """Whether an object of a list is a turn, or a question with its answer: then the list is a conversation."""
    if any(key in first for key in ROLE_KEYS):
        return True
    return (
        len(first) == 2
        and {ROLES.get(key.lower()) for key in first} == {"user", "assistant"}
        and not {"instruction", "question"} & set(first)
    )
