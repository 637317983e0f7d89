"""From a block of rows to conversations in Arrow, with what is wrong with each."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from studio.data import alike
from studio.data.block import Block, Lines
from studio.data.blocks import parsed
from studio.data.checks import scan
from studio.data.converter import Converter
from studio.data.problem import KEPT_PER_KIND, Problem, problem
from studio.data.texts import PLACE, ROLES, Kept, Texts, joined

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.int64()), ("messages", MESSAGES), ("more", pa.string())])
NAMES = [(bytes([n]), role.encode()) for n, role in enumerate(ROLES)]
SIZES = np.array([len(role) for role in ROLES])
EDGE = 40  # bytes
FEW = 1 << 14  # bytes of lines that are not worth halving once more
FACTORS = np.arange(1, 11, dtype=np.uint64).reshape(2, EDGE // 8) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
LOW = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # the first n bytes of a word


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
class Chunk:
    """Some rows, read: the usable ones as an Arrow table (SCHEMA) and hashes of each (uint64). rows: how many, usable or not.

    exact: of all its text; loose: of its first and last bytes.
    """

    table: pa.Table
    exact: np.ndarray
    loose: np.ndarray
    rows: int


def digest(block: Block | Lines, first_row: int, convert: Converter, found: Found) -> Iterator[Chunk]:
    """Convert and check every row of a block. first_row: number of its first row, from 1."""
    todo = [block]
    while todo:
        one = todo.pop()
        chunk = _together(one, first_row, convert, found) if isinstance(one, Lines) and convert.shapes is not None else None
        halves = one.halves() if chunk is None and isinstance(one, Lines) and convert.shapes is not None and len(one.raw) > FEW else None
        if halves:  # so that a line that is not plain does not slow all the others down
            todo += reversed(halves)
            continue
        chunk = chunk or _row_by_row(parsed(one), first_row, convert, found)
        first_row += chunk.rows
        yield chunk


def _together(lines: Lines, first_row: int, convert: Converter, found: Found) -> Chunk | None:
    """A chunk of lines that are alike; None where they must be read one by one."""
    reading = alike.read(lines, convert.shapes, lambda n, block, row: _convert(n, block, first_row + row, convert, found))
    return None if reading is None else _chunk(reading.texts, reading.rows, first_row, found)


def _row_by_row(block: Block, first_row: int, convert: Converter, found: Found) -> Chunk:
    kept = Kept()
    for n in range(len(block.rows)):
        conversation = _convert(n, block, first_row + n, convert, found)
        if conversation is not None:
            kept.add(n, conversation)
    return _chunk(kept.texts(block.lines), len(block.rows), first_row, found)


def _convert(n: int, block: Block, number: int, convert: Converter, found: Found) -> dict[str, Any] | None:
    """Row n of the block, the number-th of the file."""
    found.row, found.line = number, block.lines[n] if block.lines else None
    if n in block.bad:
        kind, value, reason = block.bad[n]
        found(kind, None, value, reason)
        return None
    return convert(block.rows[n], found)


def _chunk(texts: Texts, rows: int, first_row: int, found: Found) -> Chunk:
    after = np.cumsum(texts.counts, dtype=np.int64)
    numbers = texts.index + first_row
    _check(texts, after, numbers, found)
    names = texts.roles.tobytes()
    for sign, name in NAMES:
        names = names.replace(sign, name)
    turns = pa.StructArray.from_arrays([_strings(names, np.cumsum(SIZES[texts.roles])), _strings(texts.data, texts.ends)], fields=list(MESSAGES.value_type))
    lists = pa.ListArray.from_buffers(MESSAGES, len(after), [None, _offsets(after)], children=[turns])
    lines = pa.nulls(len(numbers), pa.int64()) if texts.lines is None else _numbers(texts.lines)
    table = pa.table([_numbers(numbers), lines, lists, _optional(texts.more)], schema=SCHEMA)
    return Chunk(table, *_hashes(texts.data, texts.ends, after), rows)


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
    data, ends, _ = joined([text or "" for text in texts])
    there = np.packbits(np.array([text is not None for text in texts]), bitorder="little").tobytes()
    return pa.StringArray.from_buffers(len(texts), _offsets(ends), pa.py_buffer(data), pa.py_buffer(there), texts.count(None))


def _check(texts: Texts, after: np.ndarray, numbers: np.ndarray, found: Found) -> None:
    """after: the number of texts up to the end of each row; numbers: of each row in the file."""
    if not texts.data:
        return
    for kind, text, value in scan(texts.data, texts.ends, texts.roles == PLACE["assistant"]):
        n = _at(text, texts, after, numbers, found)
        count = int(texts.counts[n])
        role = ROLES[texts.roles[text]]
        found(kind, role if count <= 2 else f"turn {text - int(after[n]) + count + 1} ({role})", value)
    for text, content in texts.broken.items():  # half surrogates: bytes that were not UTF-8, or broken escapes
        _at(text, texts, after, numbers, found)
        found("encoding", None, content.encode(errors="replace").decode())


def _at(text: int, texts: Texts, after: np.ndarray, numbers: np.ndarray, found: Found) -> int:
    """Tell `found` where a text stands; its row among the usable ones."""
    n = int(np.searchsorted(after, text, side="right"))
    found.row, found.line = int(numbers[n]), None if texts.lines is None else int(texts.lines[n])
    return n


def _hashes(data: bytes, ends: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row: the hash of all its text, and the hash of its first and last EDGE bytes."""
    if not len(after):
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    stops = ends[after - 1]
    starts = np.concatenate(([0], stops[:-1]))
    rows = map(data.__getitem__, map(slice, starts.tolist(), stops.tolist()))
    exact = np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(after))
    padded = np.frombuffer(data + bytes(EDGE), np.uint8)
    words = np.lib.stride_tricks.as_strided(padded[:8].view(np.uint64), (len(data) + EDGE - 7,), (1,))  # 8 bytes from any place on
    edges = np.column_stack((starts, np.maximum(stops - EDGE, starts)))[:, :, None] + np.arange(0, EDGE, 8)
    said = words[edges]
    if (stops - starts < EDGE).any():
        said &= LOW[np.clip(stops[:, None, None] - edges, 0, 8)]
    mixed = (said * FACTORS).sum(axis=(1, 2), dtype=np.uint64)  # a different odd factor for each word
    return exact, mixed ^ mixed >> np.uint64(29)


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
