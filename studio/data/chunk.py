"""Converts a block of rows to conversations in Arrow, and collects the problems of each row."""

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

from studio.data.arrow_buffers import numbers as arrow_numbers
from studio.data.arrow_buffers import offsets, strings
from studio.data.block import Block
from studio.data.converter import Converter
from studio.data.problem import MAX_DETAILED_PER_KIND, Problem, problem
from studio.data.repeats import ending_keys, normalized
from studio.data.text_checks import scan
from studio.text.tool_calls import called_functions

COMPARED = frozenset(("rejected", "label"))
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.int64()), ("messages", MESSAGES), ("more", pa.string())])


class ProblemCollector:
    """Collects the problems of rows: all row numbers by kind, and the first of each kind in detail.

    row: number in the file of the current row. first, lines: number of the block's first row, and its lines or None.
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
    """The usable rows of a block as an Arrow table (SCHEMA), and two hashes of each (uint64).

    exact: of all text and calls. endings: of the calls and of the first and last bytes of the normalized text.
    """

    table: pa.Table
    exact: np.ndarray
    endings: np.ndarray


def convert_block(block: Block, first_row: int, convert: Converter, problems: ProblemCollector) -> Chunk:
    """Convert and check every row of a block. first_row: number of its first row, from 1."""
    conversations, numbers = [], []
    bad, flagged = block.bad, block.flagged
    problems.first, problems.lines = first_row, block.lines
    for problems.row, row in enumerate(block.rows, first_row):
        if row is None and problems.row - first_row in bad:
            kind, value, reason = bad[problems.row - first_row]
            problems(kind, None, value, reason)
            continue
        if flagged and (kind := flagged.get(problems.row - first_row)):
            problems(kind, None, row)
        if (conversation := convert(row, problems)) is not None:
            conversations.append(conversation)
            numbers.append(problems.row)
    return _chunk(conversations, np.array(numbers, np.int64), problems)


def _chunk(conversations: list[dict[str, Any]], rows: np.ndarray, problems: ProblemCollector) -> Chunk:
    """rows: the number of each conversation's row in the file."""
    turns = [c.pop("messages") or [{"role": "text", "content": c.pop("text")}] for c in conversations]
    flat, row_ends = list(chain.from_iterable(turns)), np.cumsum(list(map(len, turns)), dtype=np.int64)
    names = [turn["role"] for turn in flat]
    sizes = np.array(list(map(len, names)), np.int64)
    data, text_ends, broken = concatenated([turn["content"] for turn in flat])
    has_extra_keys = max(map(len, flat), default=0) > 2  # turns that say more than role and content
    answers = sizes == len("assistant")  # no other role has as many letters
    if has_extra_keys:  # words before a call are no whole answer
        answers &= np.fromiter(("tool_calls" not in turn for turn in flat), np.bool_, len(flat))
    _check(_Texts(data, text_ends, names, row_ends, rows), answers, broken, problems)
    fields = [strings("".join(names).encode(), np.cumsum(sizes)), strings(data, text_ends)]
    turn_structs = pa.StructArray.from_arrays(fields, fields=list(MESSAGES.value_type))
    lists = pa.ListArray.from_buffers(MESSAGES, len(row_ends), [None, offsets(row_ends)], children=[turn_structs])
    says_more = has_extra_keys or (conversations and not COMPARED.isdisjoint(conversations[0]))
    identities = list(map(_extra_identity, conversations, turns)) if says_more else []
    if has_extra_keys:
        for conversation, messages in zip(conversations, turns, strict=True):
            if more := {
                n: {k: v for k, v in m.items() if k not in ("role", "content")}
                for n, m in enumerate(messages)
                if len(m) > 2
            }:
                conversation["turns"] = more
    lines = pa.nulls(len(conversations), pa.int64())
    if problems.lines is not None:
        lines = arrow_numbers(np.array(problems.lines, np.int64)[rows - problems.first])
    extras = pa.nulls(len(conversations), pa.string())
    if any(conversations):
        extra_data, extra_ends, _ = concatenated([_json(c) if c else "" for c in conversations])
        extras = strings(extra_data, extra_ends, [bool(c) for c in conversations])
    table = pa.table([arrow_numbers(rows), lines, lists, extras], schema=SCHEMA)
    return Chunk(table, *_hashes(data, text_ends, row_ends, identities))


class _Texts(NamedTuple):
    """The texts of a block.

    data: all texts concatenated, in UTF-8. text_ends, roles: of each text. row_ends: number of texts up to the end of
    each row. numbers: of each row in the file.
    """

    data: bytes
    text_ends: np.ndarray
    roles: list[str]
    row_ends: np.ndarray
    numbers: np.ndarray

    def at(self, text: int, problems: ProblemCollector) -> str:
        """Set the current row of `problems` to that of a text; returns the name of its turn."""
        n = int(np.searchsorted(self.row_ends, text, side="right"))
        problems.row = int(self.numbers[n])
        first = int(self.row_ends[n - 1]) if n else 0
        role = self.roles[text]
        return role if self.row_ends[n] - first <= 2 else f"turn {text - first + 1} ({role})"


def _check(texts: _Texts, answers: np.ndarray, broken: dict[int, str], problems: ProblemCollector) -> None:
    """answers: which texts are the assistant's."""
    if not texts.data:
        return
    for kind, text, value in scan(texts.data, texts.text_ends, answers):
        problems(kind, texts.at(text, problems), value)
    for text, content in broken.items():
        surrogate = next(char for char in content if "\ud800" <= char <= "\udfff")
        escaped = "\udc80" <= surrogate <= "\udcff"  # how Python writes a byte that is no UTF-8
        reason = (
            f"The text holds half a sign (\\u{ord(surrogate):04x}): an emoji that was cut in two. "
            "Write it whole, or take it out."
        )
        value = content.encode(errors="replace").decode()
        problems("encoding", texts.at(text, problems), value, "" if escaped else reason)


def _hashes(
    data: bytes, text_ends: np.ndarray, row_ends: np.ndarray, identities: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(exact, endings) of each row. identities: as _extra_identity, or [] where no row has one."""
    rows = [data[a:b] for a, b in pairwise([0, *text_ends[row_ends - 1].tolist()] if len(row_ends) else [0])]
    exact, endings = (
        np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(rows)) for texts in (rows, ending_keys(rows))
    )
    if identities:
        extra = np.fromiter(
            (xxhash.xxh3_64_intdigest(identity.encode(errors="replace")) if identity else 0 for identity in identities),
            np.uint64,
            len(rows),
        )
        exact, endings = exact ^ extra, endings ^ extra
    return exact, endings


def normalized_hash(conversation: dict[str, Any]) -> int:
    """A hash of the conversation that ignores case, blanks and punctuation."""
    turns = conversation["messages"] or [{"content": conversation["text"]}]
    text = normalized("".join(turn["content"] for turn in turns).encode(errors="replace"))
    return xxhash.xxh3_64_intdigest(text + _extra_identity(conversation, turns).encode(errors="replace"))


def _extra_identity(conversation: dict[str, Any], turns: list[dict[str, Any]]) -> str:
    """What else distinguishes rows of the same text, as JSON: calls, the rejected answer, the label; "" for nothing."""
    calls, rejected, label = called_functions(turns), conversation.get("rejected"), conversation.get("label")
    more = conversation.get("rejected_more")
    if type(rejected) is str and not calls and label is None and not more:
        return rejected
    parts = [calls, label, rejected, more]
    return json.dumps(parts, sort_keys=True, default=str) if any(part or part is False for part in parts) else ""


def from_row(record: dict[str, Any]) -> dict[str, Any]:
    """The conversation of a table row: {"messages", "row", "line"}, with "text", "tools", … where it has any."""
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


def concatenated(texts: list[str]) -> tuple[bytes, np.ndarray, dict[int, str]]:
    """(all texts concatenated in UTF-8, the end of each, {index: text} of those with half surrogates)."""
    whole, broken = "".join(texts), {}
    if whole.isascii():
        return whole.encode(), np.cumsum(np.array(list(map(len, texts)), np.int64)), broken
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:
        encoded = [text.encode(errors="replace") for text in texts]
        broken = {n: text for n, text in enumerate(texts) if any("\ud800" <= char <= "\udfff" for char in text)}
    return b"".join(encoded), np.cumsum(np.array(list(map(len, encoded)), np.int64)), broken


def _json(more: dict[str, Any]) -> str:
    """What a conversation has beside its turns, as JSON."""
    try:
        return orjson.dumps(more, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # half surrogates, numbers beyond 64 bits
        return json.dumps(more, default=str)
