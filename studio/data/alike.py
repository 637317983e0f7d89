"""Lines that are alike, read together: from the bytes of a block of JSON Lines straight to its texts.

Quotes are found, texts are told from keys, and the shape of every line is looked up (see shape.py), all with NumPy over the
whole block; then all texts are unescaped by one call of the JSON parser. No Python object is made for a row. That is what
makes a million rows cost little more than parsing them.

What comes out is what reading line by line gives, always: odd lines are read that way here too, and a block is given up
(None) as soon as something in it is not plain: bytes that no JSON holds, a line break inside a text, an escape or a letter
that is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from studio.data.block import Block, Lines
from studio.data.blocks import parse_lines
from studio.data.shape import FIGURE, HOLE, NUMBER, Shapes
from studio.data.texts import Kept, Texts, merged

QUOTE, BACKSLASH, COLON, BREAK = b'"\\:\n'
PART, PART_SIGN = b"\\u0001", 1  # stands between two texts while they are unescaped together
LARGEST = 1 << 30  # bytes of a block
BACKSLASHES = 64  # more in a row are left to the parser
One = Callable[[int, Block, int], dict[str, Any] | None]


class Reading(NamedTuple):
    """texts: of the usable rows; rows: how many rows the lines hold, usable or not."""

    texts: Texts
    rows: int


class _Holes(NamedTuple):
    """The texts left out of the shapes: where each opens and closes (its quotes), and the shape of every line."""

    opens: np.ndarray
    closes: np.ndarray
    shapes: list[bytes]


def read(lines: Lines, shapes: Shapes, one: One) -> Reading | None:
    """All rows of these lines, or None where they must be read one by one.

    one(n, block, row): the conversation of the odd row n of a block, which is the row-th of these lines from 0, or None.
    """
    raw = np.frombuffer(lines.raw, np.uint8)
    holes = _holes(lines.raw, raw, shapes.literal) if len(raw) < LARGEST else None
    if holes is None:
        return None
    codes = np.fromiter(map(shapes.__getitem__, holes.shapes), np.int64, len(holes.shapes))
    sizes = np.array([recipe.holes for recipe in shapes.recipes], np.int64)[codes]
    first = np.cumsum(sizes) - sizes  # the first hole of every line
    odd = np.array([recipe.odd for recipe in shapes.recipes])[codes]
    odd[np.searchsorted(first + sizes, _blank(lines.raw, raw, holes), side="right")] = True
    put = _Put(codes, first, odd, shapes)
    found = put.texts(lines.raw, holes, sizes)
    return None if found is None else _with_odd(found, lines, raw, odd, one)


def _holes(data: bytes, raw: np.ndarray, literal: tuple[bytes, ...]) -> _Holes | None:
    quotes = np.flatnonzero(raw == QUOTE)
    quotes = _unescaped(raw, quotes)
    if quotes is None or len(quotes) % 2 or HOLE in data or FIGURE in data:
        return None
    opens, closes = quotes[0::2], quotes[1::2]
    key = raw[np.minimum(closes + 1, len(raw) - 1)] == COLON
    hole = ~key & (closes - opens > 1)
    for name in literal:  # the text behind such a key belongs to the shape
        named = np.flatnonzero(key & (closes - opens == len(name) + 1))
        named = named[(raw[opens[named][:, None] + np.arange(1, len(name) + 1)] == np.frombuffer(name, np.uint8)).all(axis=1)]
        hole[np.minimum(named + 1, len(hole) - 1)] = False
    opens, closes = opens[hole], closes[hole]
    starts, stops = np.concatenate(([0], closes)), np.concatenate((opens + 2, [len(raw)]))
    ends = np.cumsum(stops - starts)
    kept = raw[np.arange(ends[-1]) + np.repeat(stops - ends, stops - starts)]
    kept[ends[:-1] - 1] = HOLE[0]  # in place of the first byte of each text
    outline = kept.tobytes()
    if ((kept >= 48) & (kept <= 57)).any():
        outline = NUMBER.sub(FIGURE, outline)
    found = outline.split(b"\n")
    return _Holes(opens, closes, found if found[-1] else found[:-1])


def _unescaped(raw: np.ndarray, quotes: np.ndarray) -> np.ndarray | None:
    """The quotes before which no backslash stands, or an even number of them."""
    escaped, left, back = np.zeros(len(quotes), bool), np.arange(len(quotes)), 1
    while len(left):
        at = quotes[left] - back
        left = left[(at >= 0) & (raw[at] == BACKSLASH)]
        escaped[left] ^= True
        back += 1
        if back > BACKSLASHES:
            return None
    return quotes[~escaped]


def _blank(data: bytes, raw: np.ndarray, holes: _Holes) -> np.ndarray:
    """The holes whose text is nothing but blanks: such a text counts as empty."""
    begin, end = raw[holes.opens + 1], raw[holes.closes - 1]
    letter = ((end | 32) >= 97) & ((end | 32) <= 122) & (begin != BACKSLASH)  # most end in a letter or a full stop
    maybe = ((begin <= 32) | (begin == BACKSLASH) | np.isin(begin, (0xC2, 0xE1, 0xE2, 0xE3))) & ~letter & (end != ord("."))
    found = [n for n in np.flatnonzero(maybe).tolist() if _is_blank(data[holes.opens[n] : holes.closes[n] + 1])]
    return np.array(found, np.int64)


def _is_blank(text: bytes) -> bool:
    try:
        return orjson.loads(text).isspace()
    except orjson.JSONDecodeError:
        return True  # read alone, it is told what is wrong


class _Put:
    """Where the texts of the lines that are alike go."""

    def __init__(self, codes: np.ndarray, first: np.ndarray, odd: np.ndarray, shapes: Shapes):
        """codes: recipe of every line; first: its first hole."""
        recipes = [recipe._replace(pieces=(), joins=(), roles=()) if recipe.odd else recipe for recipe in shapes.recipes]
        self.counts = np.array([len(r.roles) for r in recipes], np.int64)[codes] * ~odd  # texts per line
        pieces = np.array([len(r.pieces) for r in recipes], np.int64)[codes] * ~odd
        piece_at, text_at = np.cumsum(pieces) - pieces, np.cumsum(self.counts) - self.counts
        self.hole, self.joins = np.empty(pieces.sum(), np.int64), np.zeros(pieces.sum(), bool)
        self.roles, self.split = np.empty(self.counts.sum(), np.int8), np.full(len(codes), -1, np.int64)
        self.odd, self.first = odd, first
        for code in np.unique(codes[~odd]).tolist():
            recipe, lines = recipes[code], np.flatnonzero((codes == code) & ~odd)
            places = piece_at[lines][:, None] + np.arange(len(recipe.pieces))
            self.hole[places] = first[lines][:, None] + np.array(recipe.pieces)
            self.joins[places] = recipe.joins
            self.roles[text_at[lines][:, None] + np.arange(len(recipe.roles))] = recipe.roles
            if recipe.split is not None:
                self.split[lines] = piece_at[lines] + recipe.split

    def texts(self, data: bytes, holes: _Holes, sizes: np.ndarray) -> Texts | None:
        """The texts of all lines that are alike; index is the line's. None where one of the texts is not sound."""
        unused = np.repeat(~self.odd, sizes)
        unused[self.hole] = False
        left = np.flatnonzero(unused)  # fields that nothing is made of must be sound JSON all the same
        if _unescape(data, holes, left, np.zeros(len(left), bool)) is None:
            return None
        found = _unescape(data, holes, self.hole, self.joins)
        if found is None:
            return None
        said, ends = found
        more: list[str | None] = [None] * len(self.odd)
        noted = np.flatnonzero(self.split >= 0)
        piece = self.split[noted]
        starts = np.where(piece > 0, ends[piece - 1], 0)
        for line, size in zip(noted.tolist(), _characters(said, starts, ends[piece]).tolist(), strict=True):
            more[line] = f'{{"split": {size}}}'
        index = np.flatnonzero(~self.odd)
        last = np.ones(len(ends), bool)
        last[:-1] = ~self.joins[1:]
        return Texts(said, ends[last], self.roles, self.counts[index], [more[n] for n in index.tolist()], index, None)


def _unescape(data: bytes, holes: _Holes, chosen: np.ndarray, joins: np.ndarray) -> tuple[bytes, np.ndarray] | None:
    """The texts of these holes, end to end in UTF-8, and where each ends; before one that joins stands a line break."""
    if not len(chosen):
        return b"", np.empty(0, np.int64)
    try:
        whole = orjson.loads(_quoted(data, holes, chosen)).encode()
    except orjson.JSONDecodeError:
        return None
    parts = np.flatnonzero(np.frombuffer(whole, np.uint8) == PART_SIGN)
    if len(parts) != len(chosen) - 1:
        return None  # one of the texts holds such a byte itself
    if joins.any():
        changed = bytearray(whole)
        np.frombuffer(changed, np.uint8)[parts[joins[1:]]] = BREAK
        whole = bytes(changed)
    gone = np.cumsum(~joins[1:]) - ~joins[1:]  # parts that are taken out before each
    said = whole.replace(bytes([PART_SIGN]), b"")
    return said, np.append(parts - gone, len(said))


def _quoted(data: bytes, holes: _Holes, chosen: np.ndarray) -> memoryview:
    """The texts of these holes as one text of JSON, with a PART between each and the next.

    Arrow copies them: text, gap, text, gap, …, a quote, a PART are the elements of one array, of which some are taken.
    """
    count, size = len(holes.opens), len(data)
    edges = np.empty(2 * count + 3, np.int32)
    edges[: 2 * count : 2], edges[1 : 2 * count : 2] = holes.opens + 1, holes.closes
    edges[2 * count :] = size, size + 1, size + 1 + len(PART)
    elements = pa.BinaryArray.from_buffers(pa.binary(), 2 * count + 2, [None, pa.py_buffer(edges), pa.py_buffer(data + b'"' + PART)])
    taken = np.full(2 * len(chosen) + 1, 2 * count + 1, np.int32)
    taken[1::2] = 2 * chosen
    taken[0] = taken[-1] = 2 * count
    wanted = pa.Array.from_buffers(pa.int32(), len(taken), [None, pa.py_buffer(taken)])
    return memoryview(elements.take(wanted).buffers()[2])


def _characters(data: bytes, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Characters in each stretch of UTF-8."""
    if data.isascii() or not len(starts):
        return stops - starts
    heads = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    edges = np.column_stack((starts, stops)).ravel()
    return np.add.reduceat(heads, edges, dtype=np.int64)[::2]


def _with_odd(found: Texts, lines: Lines, raw: np.ndarray, odd: np.ndarray, one: One) -> Reading | None:
    """The odd lines, each read by itself, put between the others; rows are counted without the blank lines."""
    found.lines = found.index + lines.first
    if not odd.any():
        return Reading(found, len(odd))
    breaks, at = np.flatnonzero(raw == BREAK), np.flatnonzero(odd)
    if lines.last - lines.first + 1 != len(odd):
        return None  # a line break inside a text
    starts, stops = np.concatenate(([0], breaks + 1)), np.append(breaks, len(raw))
    alone = [lines.raw[a:b] for a, b in zip(starts[at].tolist(), stops[at].tolist(), strict=True)]
    block = parse_lines(alone, (at + lines.first).tolist(), lines.done)
    of_odd = np.array(block.lines, np.int64) - lines.first
    is_row = ~odd
    is_row[of_odd] = True
    row = np.cumsum(is_row) - 1
    kept = Kept()
    for n, place in enumerate(row[of_odd].tolist()):
        conversation = one(n, block, place)
        if conversation is not None:
            kept.add(n, conversation)
    others = kept.texts(block.lines)
    found.index, others.index = row[found.index], row[of_odd][others.index]
    return Reading(merged(found, others), int(is_row.sum()))
