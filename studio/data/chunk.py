"""From a block of rows to conversations in Arrow, with what is wrong with each."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from studio.data.block import Block
from studio.data.converter import Converter
from studio.data.problem import MAX_DETAILED_PER_KIND, Problem, problem
from studio.data.repeats import ending_key, normalized
from studio.data.text_checks import scan
from studio.text.tool_calls import called_functions

COMPARED = frozenset(("rejected", "label"))
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.int64()), ("messages", MESSAGES), ("more", pa.string())])


class ProblemCollector:
    """Collects the problems of one row after the other: all row numbers by kind, and the first of each kind in detail.

    row: the number in the file of the row that is looked at; lines: those of the block whose first row is number `first`, or None.
    """

    def __init__(self) -> None:
        self.row, self.first, self.lines = 0, 1, None
        self.problems: list[Problem] = []
        self.rows: dict[str, array[int]] = {}

    def __call__(self, kind: str, field: str | None = None, value: Any = "", reason: str = "") -> None:
        rows = self.rows.setdefault(kind, array("q"))
        rows.append(self.row)
        if len(rows) <= MAX_DETAILED_PER_KIND:
            line = self.lines[self.row - self.first] if self.lines else None
            self.problems.append(problem(kind, self.row, line, field, value, reason))


@dataclass
class Chunk:
    """The usable rows of a block as an Arrow table (SCHEMA), and hashes of each (uint64).

    exact: of all its text and calls; endings: of the calls, the beginning and the end of the text, without case, blanks and punctuation.
    """

    table: pa.Table
    exact: np.ndarray
    endings: np.ndarray


def convert_block(block: Block, first_row: int, convert: Converter, found: ProblemCollector) -> Chunk:
    """Convert and check every row of a block. first_row: number of its first row, from 1."""
    kept, numbers, bad = [], [], block.bad
    found.first, found.lines = first_row, block.lines
    for found.row, row in enumerate(block.rows, first_row):
        if row is None and found.row - first_row in bad:
            kind, value, reason = bad[found.row - first_row]
            found(kind, None, value, reason)
        elif (conversation := convert(row, found)) is not None:
            kept.append(conversation)
            numbers.append(found.row)
    return _chunk(kept, np.array(numbers, np.int64), found)


def _chunk(kept: list[dict[str, Any]], numbers: np.ndarray, found: ProblemCollector) -> Chunk:
    """numbers: of each conversation's row in the file."""
    turns = [one.pop("messages") or [{"role": "text", "content": one.pop("text")}] for one in kept]
    flat, after = list(chain.from_iterable(turns)), np.cumsum(list(map(len, turns)), dtype=np.int64)
    names = [turn["role"] for turn in flat]
    sizes = np.array(list(map(len, names)), np.int64)
    data, ends, broken = joined([turn["content"] for turn in flat])
    _check(
        _Texts(data, ends, names, after, numbers), sizes == len("assistant"), broken, found
    )  # no other role has as many letters
    fields = [_strings("".join(names).encode(), np.cumsum(sizes)), _strings(data, ends)]
    pairs = pa.StructArray.from_arrays(fields, fields=list(MESSAGES.value_type))
    lists = pa.ListArray.from_buffers(MESSAGES, len(after), [None, _offsets(after)], children=[pairs])
    wide = max(map(len, flat), default=0) > 2  # turns that say more than role and content
    beside = list(map(_beside, kept, turns)) if wide or (kept and not COMPARED.isdisjoint(kept[0])) else []
    if wide:
        for one, messages in zip(kept, turns, strict=True):
            if more := {
                n: {k: v for k, v in m.items() if k not in ("role", "content")}
                for n, m in enumerate(messages)
                if len(m) > 2
            }:
                one["turns"] = more
    more = _optional([_json(one) if one else None for one in kept])
    lines = (
        _numbers(np.array(found.lines, np.int64)[numbers - found.first])
        if found.lines is not None
        else pa.nulls(len(kept), pa.int64())
    )
    return Chunk(pa.table([_numbers(numbers), lines, lists, more], schema=SCHEMA), *_hashes(data, ends, after, beside))


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
    return pa.StringArray.from_buffers(
        len(texts), _offsets(ends), pa.py_buffer(data), pa.py_buffer(there), texts.count(None)
    )


class _Texts(NamedTuple):
    """data: all texts end to end in UTF-8; ends, roles: of each; after: texts up to the end of each row; numbers: of each row in the file."""

    data: bytes
    ends: np.ndarray
    roles: list[str]
    after: np.ndarray
    numbers: np.ndarray

    def at(self, text: int, found: ProblemCollector) -> str:
        """Tell `found` in which row a text stands; the turn it is, in words."""
        n = int(np.searchsorted(self.after, text, side="right"))
        found.row = int(self.numbers[n])
        first = int(self.after[n - 1]) if n else 0
        role = self.roles[text]
        return role if self.after[n] - first <= 2 else f"turn {text - first + 1} ({role})"


def _check(texts: _Texts, answers: np.ndarray, broken: dict[int, str], found: ProblemCollector) -> None:
    """answers: which texts are the assistant's."""
    if not texts.data:
        return
    for kind, text, value in scan(texts.data, texts.ends, answers):
        found(kind, texts.at(text, found), value)
    for text, content in broken.items():
        half = next(sign for sign in content if "\ud800" <= sign <= "\udfff")
        escaped = "\udc80" <= half <= "\udcff"  # how Python writes a byte that is no UTF-8
        reason = (
            ""
            if escaped
            else f"The text holds half a sign (\\u{ord(half):04x}): an emoji that was cut in two. Write it whole, or take it out."
        )
        found("encoding", texts.at(text, found), content.encode(errors="replace").decode(), reason)


def _hashes(data: bytes, ends: np.ndarray, after: np.ndarray, beside: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Per row: the hash of all its text, and of its ending. beside: what else tells a row from others, as _beside gives it."""
    rows = [data[a:b] for a, b in pairwise([0, *ends[after - 1].tolist()] if len(after) else [0])]
    exact, endings = (
        np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(rows))
        for texts in (rows, map(ending_key, rows))
    )
    if beside:
        more = np.fromiter(
            (xxhash.xxh3_64_intdigest(one.encode(errors="replace")) if one else 0 for one in beside),
            np.uint64,
            len(rows),
        )
        exact, endings = exact ^ more, endings ^ more
    return exact, endings


def normalized_hash(conversation: dict[str, Any]) -> int:
    """A hash of what a conversation says: equal for those that differ in case, blanks and punctuation alone."""
    turns = conversation["messages"] or [{"content": conversation["text"]}]
    words = normalized("".join(turn["content"] for turn in turns).encode(errors="replace"))
    return xxhash.xxh3_64_intdigest(words + _beside(conversation, turns).encode(errors="replace"))


def _beside(conversation: dict[str, Any], turns: list[dict[str, Any]]) -> str:
    """What tells a row from others of the same words: the calls of its turns, the answer that is worse, the verdict; "" for none."""
    made = [called_functions(turns), *(conversation.get(name) for name in sorted(COMPARED))]
    return json.dumps(made, sort_keys=True, default=str) if any(one or one is False for one in made) else ""


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


def _json(more: dict[str, Any]) -> str:
    """What a conversation has beside its turns, as JSON."""
    try:
        return orjson.dumps(more, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # half surrogates, numbers beyond 64 bits
        return json.dumps(more, default=str)
