"""From a block of rows to conversations in Arrow, with what is wrong with each."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from studio.data.block import Block
from studio.data.checks import scan
from studio.data.converter import Converter
from studio.data.problem import KEPT_PER_KIND, Problem, problem
from studio.text.calls import said

ROLES = ("system", "user", "assistant", "tool", "text")
PLACE = {role: n for n, role in enumerate(ROLES)}
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.int64()), ("messages", MESSAGES), ("more", pa.string())])
SIZES = np.array([len(role) for role in ROLES])
EDGE = 40  # bytes
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
    """The usable rows of a block as an Arrow table (SCHEMA), and hashes of each (uint64).

    exact: of all its text; loose: of its first and last bytes.
    """

    table: pa.Table
    exact: np.ndarray
    loose: np.ndarray


class _Columns:
    """Usable rows as they come, as columns: the texts of all turns, how many each row has, and what is more than these."""

    def __init__(self) -> None:
        self.roles: list[int] = []  # of each text, as its place in ROLES
        self.contents: list[str] = []
        self.counts: list[int] = []  # texts per row
        self.more: list[str | None] = []
        self.index: list[int] = []  # of the row in its block
        self.calls: dict[int, str] = {}  # of the rows that call tools: what they call, which their texts do not say

    def add(self, n: int, conversation: dict[str, Any]) -> None:
        messages = conversation["messages"]
        if "text" in conversation:
            messages = [{"role": "text", "content": conversation.pop("text")}]
        wide = len(conversation) > 1
        for message in messages:
            self.roles.append(PLACE[message["role"]])
            self.contents.append(message["content"])
            wide = wide or len(message) > 2
        self.counts.append(len(messages))
        self.more.append(_more(conversation) if wide else None)
        called = said(messages) if wide else None
        if called:
            self.calls[len(self.index)] = json.dumps(called, sort_keys=True, default=str)
        self.index.append(n)


def digest(block: Block, first_row: int, convert: Converter, found: Found) -> Chunk:
    """Convert and check every row of a block. first_row: number of its first row, from 1."""
    kept, lines = _Columns(), block.lines
    for n, row in enumerate(block.rows):
        found.row, found.line = first_row + n, lines[n] if lines else None
        if n in block.bad:
            kind, value, reason = block.bad[n]
            found(kind, None, value, reason)
            continue
        conversation = convert(row, found)
        if conversation is not None:
            kept.add(n, conversation)
    return _chunk(kept, lines, first_row, found)


def _chunk(kept: _Columns, lines: list[int] | None, first_row: int, found: Found) -> Chunk:
    data, ends, broken = joined(kept.contents)
    roles, after = np.array(kept.roles, np.int8), np.cumsum(kept.counts, dtype=np.int64)
    index = np.array(kept.index, np.int64)
    where = None if lines is None else np.array(lines, np.int64)[index]
    _check(_Texts(data, ends, roles, after, index + first_row, where), broken, found)
    names = "".join(map(ROLES.__getitem__, kept.roles)).encode()
    columns = [_strings(names, np.cumsum(SIZES[roles])), _strings(data, ends)]
    turns = pa.StructArray.from_arrays(columns, fields=list(MESSAGES.value_type))
    lists = pa.ListArray.from_buffers(MESSAGES, len(after), [None, _offsets(after)], children=[turns])
    numbers = pa.nulls(len(index), pa.int64()) if where is None else _numbers(where)
    table = pa.table([_numbers(index + first_row), numbers, lists, _optional(kept.more)], schema=SCHEMA)
    exact, loose = _hashes(data, ends, after)
    for n, called in kept.calls.items():
        exact[n] ^= np.uint64(xxhash.xxh3_64_intdigest(called.encode(errors="replace")))
    return Chunk(table, exact, loose)


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


class _Texts(NamedTuple):
    """data: all texts end to end in UTF-8; ends: of each; roles: of each, as its place in ROLES.

    after: the number of texts up to the end of each row; numbers: of each row in the file; lines: of each row, or None.
    """

    data: bytes
    ends: np.ndarray
    roles: np.ndarray
    after: np.ndarray
    numbers: np.ndarray
    lines: np.ndarray | None

    def at(self, text: int, found: Found) -> str:
        """Tell `found` in which row a text stands; the turn it is, in words."""
        n = int(np.searchsorted(self.after, text, side="right"))
        found.row, found.line = int(self.numbers[n]), None if self.lines is None else int(self.lines[n])
        first = int(self.after[n - 1]) if n else 0
        role = ROLES[self.roles[text]]
        return role if self.after[n] - first <= 2 else f"turn {text - first + 1} ({role})"


def _check(texts: _Texts, broken: dict[int, str], found: Found) -> None:
    if not texts.data:
        return
    for kind, text, value in scan(texts.data, texts.ends, texts.roles == PLACE["assistant"]):
        found(kind, texts.at(text, found), value)
    for text, content in broken.items():  # half surrogates: bytes that were not UTF-8, or broken escapes
        texts.at(text, found)
        found("encoding", None, content.encode(errors="replace").decode())


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
    said_bytes = words[edges]
    if (stops - starts < EDGE).any():
        said_bytes &= LOW[np.clip(stops[:, None, None] - edges, 0, 8)]
    mixed = (said_bytes * FACTORS).sum(axis=(1, 2), dtype=np.uint64)  # a different odd factor for each word
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


def joined(texts: list[str]) -> tuple[bytes, np.ndarray, dict[int, str]]:
    """All texts end to end in UTF-8, where each ends, and those that UTF-8 cannot say: they hold half surrogates."""
    whole, broken = "".join(texts), {}
    if whole.isascii():
        return whole.encode(), np.cumsum(np.array(list(map(len, texts)), np.int64)), broken
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:
        encoded = [text.encode(errors="replace") for text in texts]
        broken = {n: text for n, text in enumerate(texts) if any("\ud800" <= sign <= "\udfff" for sign in text)}
    return b"".join(encoded), np.cumsum(np.array(list(map(len, encoded)), np.int64)), broken


def _more(conversation: dict[str, Any]) -> str:
    """What is more than role and content, as JSON."""
    extra = {key: value for key, value in conversation.items() if key != "messages"}
    messages = conversation["messages"]
    turns = {n: {k: v for k, v in m.items() if k not in ("role", "content")} for n, m in enumerate(messages) if len(m) > 2}
    if turns:
        extra["turns"] = turns
    try:
        return orjson.dumps(extra, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # half surrogates, numbers beyond 64 bits
        return json.dumps(extra, default=str)
