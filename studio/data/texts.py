"""Texts: the usable rows of a block as columns: all their texts end to end, and where each text and each row ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROLES = ("system", "user", "assistant", "tool", "text")
PLACE = {role: n for n, role in enumerate(ROLES)}


@dataclass
class Texts:
    """data: UTF-8; ends: of each text in data; roles: of each text, as its place in ROLES; counts: texts per row.

    more: per row what is more than role and content, as JSON; index: of the row in its block, rising; lines: of each row, or None.
    broken: {text: its content} of texts that UTF-8 cannot say.
    """

    data: bytes
    ends: np.ndarray
    roles: np.ndarray
    counts: np.ndarray
    more: list[str | None]
    index: np.ndarray
    lines: np.ndarray | None
    broken: dict[int, str] = field(default_factory=dict)


@dataclass
class Kept:
    """Usable rows as they come, one conversation after the other."""

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

    def texts(self, lines: list[int] | None) -> Texts:
        """All of them as columns. lines: of every row of the block, usable or not."""
        data, ends, broken = joined(self.contents)
        index = np.array(self.index, np.int64)
        where = None if lines is None else np.array(lines, np.int64)[index]
        return Texts(data, ends, np.array(self.roles, np.int8), np.array(self.counts, np.int64), self.more, index, where, broken)


def merged(one: Texts, other: Texts) -> Texts:
    """Both, in the order of their rows; lines are those of either."""
    if not len(other.index):
        return one
    row = np.searchsorted(one.index, other.index)  # before which row of one
    begins = np.concatenate(([0], np.cumsum(one.counts)))[row]  # before which text of one
    text = np.repeat(begins, other.counts)
    edges, others = np.concatenate(([0], one.ends)), np.concatenate(([0], other.ends))
    sizes = np.insert(np.diff(edges), text, np.diff(others))
    cuts, last = [0, *edges[begins].tolist(), len(one.data)], others[np.concatenate(([0], np.cumsum(other.counts)))].tolist()
    pieces, more = [one.data[: cuts[1]]], one.more[: row[0]]
    for n, place in enumerate(row.tolist()):
        pieces += [other.data[last[n] : last[n + 1]], one.data[cuts[n + 1] : cuts[n + 2]]]
        more += [other.more[n], *one.more[place : (row[n + 1] if n + 1 < len(row) else None)]]
    broken = {int(text[n]) + n: content for n, content in other.broken.items()}
    return Texts(
        b"".join(pieces), np.cumsum(sizes), np.insert(one.roles, text, other.roles), np.insert(one.counts, row, other.counts), more,
        np.insert(one.index, row, other.index), np.insert(one.lines, row, other.lines), broken,
    )  # fmt: skip


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


def _more(messages: list[dict[str, Any]], conversation: dict[str, Any]) -> str:
    """What is more than role and content, as JSON."""
    extra: dict[str, Any] = {key: value for key, value in conversation.items() if key != "messages"}
    turns = {n: {k: v for k, v in m.items() if k not in ("role", "content")} for n, m in enumerate(messages) if len(m) > 2}
    if turns:
        extra["turns"] = turns
    return json.dumps(extra, default=str)
