"""From a block of rows to conversations in Arrow, with what is wrong with each."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from studio.data.block import Block
from studio.data.checks import scan
from studio.data.formats import as_row
from studio.data.problem import KEPT_PER_KIND, Problem, problem

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.int64()), ("messages", MESSAGES), ("more", pa.string())])
ROLES = ("system", "user", "assistant", "tool", "text")
PLACE = {role: n for n, role in enumerate(ROLES)}
NAMES = [role.encode() for role in ROLES]
SIZES = np.array([len(role) for role in ROLES])
EDGE = 40  # bytes
MIX = np.uint64(0x9E3779B97F4A7C15)


class Found:
    """Collects the problems of one row after the other: all row numbers by kind, and the first of each kind in detail."""

    def __init__(self) -> None:
        self.row, self.line = 0, None
        self.problems: list[Problem] = []
        self.rows: dict[str, array[int]] = {}

    def __call__(self, kind: str, field: str | None = None, value: Any = "", reason: str = "") -> None:
        rows = self.rows.setdefault(kind, array("q"))
        rows.append(self.row)
        if len(rows) <= KEPT_PER_KIND:
            self.problems.append(problem(kind, self.row, self.line, field, value, reason))


@dataclass
class Kept:
    """The usable rows of a block, text by text."""

    roles: list[int] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # texts per row
    more: list[str | None] = field(default_factory=list)
    index: list[int] = field(default_factory=list)  # of the row in its block

    def add(self, n: int, conversation: dict[str, Any]) -> None:
        messages = conversation["messages"]
        if "text" in conversation:
            messages, conversation = [{"role": "text", "content": conversation["text"]}], {"messages": []}
        self.roles += [PLACE[m["role"]] for m in messages]
        self.contents += [m["content"] for m in messages]
        self.counts.append(len(messages))
        self.more.append(_more(conversation["messages"], conversation) if len(conversation) > 1 or any(len(m) > 2 for m in messages) else None)
        self.index.append(n)


@dataclass
class Chunk:
    """One block, read: the usable rows as an Arrow table (SCHEMA) and hashes of each (uint64).

    exact: of all its text; loose: of its first and last bytes.
    """

    table: pa.Table
    exact: np.ndarray
    loose: np.ndarray


def digest(block: Block, first_row: int, form: ModuleType, rename: Callable[[Any], Any] | None, found: Found) -> Chunk:
    """Convert and check every row of a block. first_row: number of its first row, from 1. rename: the hand mapping."""
    quick = getattr(form, "quick", None) if rename is None and not block.bad else None
    plain = quick(block.rows) if quick is not None else None
    if plain is not None:
        size = len(block.rows)
        return _arrow(Kept([1, 2] * size, plain[0], [2] * size, plain[1], list(range(size))), block, first_row, found)
    kept = Kept()
    for n, row in enumerate(block.rows):
        found.row, found.line = first_row + n, block.lines[n] if block.lines else None
        conversation = _convert(n, row, block, form, rename, found)
        if conversation is not None:
            kept.add(n, conversation)
    return _arrow(kept, block, first_row, found)


def _convert(n: int, row: Any, block: Block, form: ModuleType, rename: Callable[[Any], Any] | None, found: Found) -> dict[str, Any] | None:
    if n in block.bad:
        kind, value, reason = block.bad[n]
        found(kind, None, value, reason)
        return None
    row = as_row(row)
    if rename is not None:
        row = rename(row)
    if not isinstance(row, dict):
        found("not_a_row", None, row)
        return None
    return form.convert(row, found)


def _arrow(kept: Kept, block: Block, first_row: int, found: Found) -> Chunk:
    data, ends, broken = _bytes(kept.contents)
    roles, after = np.array(kept.roles, np.int8), np.cumsum(kept.counts, dtype=np.int64)
    lines = np.array(block.lines, np.int64)[kept.index] if block.lines else None
    _check(data, ends, roles, after, kept.index, lines, first_row, found)
    if broken:
        _undecodable(kept, after, lines, first_row, found)
    role_text = b"".join([NAMES[role] for role in kept.roles])
    turns = pa.StructArray.from_arrays([_strings(role_text, np.cumsum(SIZES[roles])), _strings(data, ends)], fields=list(MESSAGES.value_type))
    lists = pa.ListArray.from_buffers(MESSAGES, len(after), [None, _offsets(after)], children=[turns])
    rows = _numbers(np.array(kept.index, np.int64) + first_row)
    line_column = pa.nulls(len(rows), pa.int64()) if lines is None else _numbers(lines)
    return Chunk(pa.table([rows, line_column, lists, _optional(kept.more)], schema=SCHEMA), *_hashes(data, ends, after))


# Arrow arrays are put together from buffers here: pa.array() would import pandas, a quarter of a second per process.


def _offsets(ends: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.concatenate(([0], ends)).astype(np.int32))


def _strings(data: bytes, ends: np.ndarray) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(ends), _offsets(ends), pa.py_buffer(data))


def _numbers(values: np.ndarray) -> pa.Int64Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values.astype(np.int64))])


def _optional(texts: list[str | None]) -> pa.StringArray:
    """Texts of which some are null."""
    if not any(texts):
        return pa.nulls(len(texts), pa.string())
    data, ends, _ = _bytes([text or "" for text in texts])
    there = np.packbits(np.array([text is not None for text in texts]), bitorder="little").tobytes()
    return pa.StringArray.from_buffers(len(texts), _offsets(ends), pa.py_buffer(data), pa.py_buffer(there), texts.count(None))


def _bytes(texts: list[str]) -> tuple[bytes, np.ndarray, bool]:
    """All texts end to end in UTF-8, where each ends, and whether there was something that UTF-8 cannot say."""
    whole, broken = "".join(texts), False
    if whole.isascii():
        return whole.encode(), np.cumsum(np.array(list(map(len, texts)), np.int64)), False
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:
        encoded, broken = [text.encode(errors="replace") for text in texts], True
    return b"".join(encoded), np.cumsum(np.array(list(map(len, encoded)), np.int64)), broken


def _check(data: bytes, ends: np.ndarray, roles: np.ndarray, after: np.ndarray, index: list[int], lines: np.ndarray | None, first: int, found: Found) -> None:
    if not data:
        return
    for kind, text, value in scan(data, ends, roles == PLACE["assistant"]):
        n = int(np.searchsorted(after, text, side="right"))
        found.row, found.line = first + index[n], int(lines[n]) if lines is not None else None
        turn = text - (int(after[n - 1]) if n else 0)
        found(kind, ROLES[roles[text]] if after[n] - (after[n - 1] if n else 0) <= 2 else f"turn {turn + 1} ({ROLES[roles[text]]})", value)


def _undecodable(kept: Kept, after: np.ndarray, lines: np.ndarray | None, first: int, found: Found) -> None:
    """Rows that hold half surrogates: bytes that were not UTF-8, or broken escapes."""
    for text, content in enumerate(kept.contents):
        if any("\ud800" <= sign <= "\udfff" for sign in content):
            n = int(np.searchsorted(after, text, side="right"))
            found.row, found.line = first + kept.index[n], int(lines[n]) if lines is not None else None
            found("encoding", None, content.encode(errors="replace").decode())


def _hashes(data: bytes, ends: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row: the hash of all its text, and the hash of its first and last EDGE bytes."""
    if not len(after):
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    stops = ends[after - 1]
    starts = np.concatenate(([0], stops[:-1]))
    view, digest = memoryview(data), xxhash.xxh3_64_intdigest
    exact = np.array([digest(view[a:b]) for a, b in zip(starts.tolist(), stops.tolist())], np.uint64)
    padded = np.frombuffer(data + bytes(EDGE), np.uint8)
    words = np.lib.stride_tricks.as_strided(padded[:8].view(np.uint64), (len(data) + EDGE - 7,), (1,))  # 8 bytes from any place on
    loose = np.zeros(len(after), np.uint64)
    for edge in (starts, np.maximum(stops - EDGE, starts)):
        for k in range(0, EDGE, 8):
            loose = (loose ^ words[edge + k]) * MIX
            loose ^= loose >> np.uint64(29)
    return exact, loose


def _more(messages: list[dict[str, Any]], conversation: dict[str, Any]) -> str:
    """What is more than role and content, as JSON."""
    extra: dict[str, Any] = {key: value for key, value in conversation.items() if key != "messages"}
    turns = {n: {k: v for k, v in m.items() if k not in ("role", "content")} for n, m in enumerate(messages) if len(m) > 2}
    if turns:
        extra["turns"] = turns
    return json.dumps(extra, default=str)


def from_row(record: dict[str, Any]) -> dict[str, Any]:
    """The conversation of one row of the table: {"messages", "row", "line"}, and "text", "tools", … where there are."""
    messages = record["messages"]
    if len(messages) == 1 and messages[0]["role"] == "text":
        return {"messages": [], "text": messages[0]["content"], "row": record["row"], "line": record["line"]}
    conversation = {"messages": messages, "row": record["row"], "line": record["line"]}
    if record["more"]:
        extra = json.loads(record["more"])
        split = extra.pop("split", None)
        if split is not None:  # an Alpaca row: where the instruction ends and the input begins in the question
            asked = next(m for m in reversed(messages) if m["role"] == "user")
            asked |= {"instruction": asked["content"][:split], "input": asked["content"][split + 1 :]}
        for n, fields in extra.pop("turns", {}).items():
            messages[int(n)].update(fields)
        conversation |= extra
    return conversation
