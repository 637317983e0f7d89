"""From a block of rows to conversations in Arrow, with what is wrong with each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pyarrow as pa

from studio.data.containers import Block
from studio.data.problem import Problem, problem

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.int64()), ("messages", MESSAGES), ("more", pa.string())])


@dataclass
class Chunk:
    """One block, read: the usable rows as an Arrow table (SCHEMA), the problems, and how many rows there were."""

    table: pa.Table
    problems: list[Problem]
    rows: int


@dataclass
class _Found:
    """Collects the problems of one row after the other."""

    row: int = 0
    line: int | None = None
    problems: list[Problem] = field(default_factory=list)

    def __call__(self, kind: str, field: str | None = None, value: Any = "", reason: str = "") -> None:
        self.problems.append(problem(kind, self.row, self.line, field, value, reason))


def digest(block: Block, first_row: int, form: ModuleType, rename: Callable[[Any], Any]) -> Chunk:
    """Convert and check every row of a block. first_row: number of its first row, from 1. rename: the hand mapping."""
    found, bad = _Found(), {index: rest for index, *rest in block.bad}
    kept: list[tuple[int, int | None, dict[str, Any]]] = []
    for n, row in enumerate(block.rows):
        found.row, found.line = first_row + n, block.lines[n] if block.lines else None
        if n in bad:
            kind, value, reason = bad[n]
            found(kind, None, value, reason)
            continue
        row = rename(row)
        if not isinstance(row, dict):
            found("not_a_row", None, row)
            continue
        conversation = form.convert(row, found)
        if conversation is not None:
            kept.append((found.row, found.line, conversation))
    return Chunk(to_table(kept), found.problems, len(block.rows))


def to_table(kept: list[tuple[int, int | None, dict[str, Any]]]) -> pa.Table:
    """(row, line, conversation) as Arrow. What is more than role and content goes as JSON into `more`."""
    offsets, roles, contents, more = [0], [], [], []
    for _, _, conversation in kept:
        messages = conversation["messages"]
        roles += [m["role"] for m in messages]
        contents += [m["content"] for m in messages]
        offsets.append(len(roles))
        more.append(_more(conversation))
    turns = pa.StructArray.from_arrays([pa.array(roles, pa.string()), pa.array(contents, pa.string())], ["role", "content"])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns)
    columns = [pa.array([k[0] for k in kept], pa.int64()), pa.array([k[1] for k in kept], pa.int64()), lists, pa.array(more, pa.string())]
    return pa.table(columns, schema=SCHEMA)


def _more(conversation: dict[str, Any]) -> str | None:
    extra: dict[str, Any] = {key: value for key, value in conversation.items() if key != "messages"}
    turns = {n: {k: v for k, v in m.items() if k not in ("role", "content")} for n, m in enumerate(conversation["messages"]) if len(m) > 2}
    if turns:
        extra["turns"] = turns
    return json.dumps(extra, ensure_ascii=False) if extra else None


def from_row(record: dict[str, Any]) -> dict[str, Any]:
    """The conversation that to_table wrote down, from one row of its table."""
    conversation = {"messages": record["messages"], "row": record["row"]}
    if record["more"]:
        extra = json.loads(record["more"])
        for n, fields in extra.pop("turns", {}).items():
            conversation["messages"][int(n)].update(fields)
        conversation.update(extra)
    return conversation
