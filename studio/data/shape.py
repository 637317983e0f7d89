"""Shape: a line of JSON with its texts left out, and what a format makes of every line of that shape.

The shape of {"instruction": "Add 1 and 2.", "input": "", "output": "3"} is {"instruction": "·", "input": "", "output": "·"}:
keys, brackets, blanks and empty texts as they stand, a HOLE where a text was, a FIGURE where a number was. Lines of one
shape have one structure, so the format's own `convert` is asked once, with marks in place of the texts; where the marks
come out says where the texts of all the other lines go. A shape that the format refuses, or of which it makes more than
plain turns (tools, numbers as text), has no recipe: its lines are odd, and are read one by one.

This holds for formats that declare SHAPED (see formats/__init__.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import orjson

from studio.data.texts import PLACE

HOLE, FIGURE = b"\x01", b"\x02"  # JSON allows neither byte anywhere
NUMBER = re.compile(rb"(?<=[:,\[ ])-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?(?=[,}\] \r\n])")
MARK = re.compile("\ue000(\\d+)\ue001(?:(\n)\ue000(\\d+)\ue001)?")
KNOWN = 20_000  # shapes remembered at most
Convert = Callable[[Any, Callable[..., None]], dict[str, Any] | None]


class Recipe(NamedTuple):
    """What becomes of a line with so many holes, the holes counted from 0; odd: the line must be read alone.

    pieces: hole after hole as they are put. joins: which pieces go on with the text before them, after a line break.
    roles: of each text, as its place in ROLES. split: the piece whose length in characters is noted, or None.
    """

    holes: int
    odd: bool = True
    pieces: tuple[int, ...] = ()
    joins: tuple[bool, ...] = ()
    roles: tuple[int, ...] = ()
    split: int | None = None


class Shapes(dict[bytes, int]):
    """Shape -> number of its recipe in `recipes`; a shape that was not met before is learnt. Equal recipes share a number."""

    def __init__(self, convert: Convert, literal: tuple[str, ...]):
        """literal: fields whose text belongs to the shape."""
        self.convert, self.literal = convert, tuple(name.encode() for name in literal)
        self.recipes: list[Recipe] = []
        self.numbers: dict[Recipe, int] = {}

    def __missing__(self, shape: bytes) -> int:
        recipe = self.learn(shape) if len(self) < KNOWN else Recipe(shape.count(HOLE))
        number = self.numbers.setdefault(recipe, len(self.recipes))
        if number == len(self.recipes):
            self.recipes.append(recipe)
        if len(self) < KNOWN:
            self[shape] = number
        return number

    def learn(self, shape: bytes) -> Recipe:
        """Two different numbers stand in for those left out: a shape on whose numbers something depends is odd."""
        made = [self._ask(shape, number) for number in ((b"0", b"7.5") if FIGURE in shape else (b"0",))]
        return made[0] if made[0] == made[-1] else Recipe(made[0].holes)

    def _ask(self, shape: bytes, number: bytes) -> Recipe:
        place, told = count(), []
        line = re.sub(HOLE, lambda _: b"\xee\x80\x80%d\xee\x80\x81" % next(place), shape.replace(FIGURE, number))
        odd = Recipe(shape.count(HOLE))
        try:
            conversation = self.convert(orjson.loads(line), lambda *said: told.append(said))
        except orjson.JSONDecodeError:
            return odd
        return odd if conversation is None or told else _recipe(conversation, odd)


def _recipe(conversation: dict[str, Any], odd: Recipe) -> Recipe:
    """How this conversation was put together from marks."""
    messages = [{"role": "text", "content": conversation["text"]}] if "text" in conversation else conversation["messages"]
    if set(conversation) - {"messages", "text", "split"} or any(len(message) != 2 for message in messages):
        return odd
    pieces, joins, length = [], [], {}
    for message in messages:
        found = MARK.fullmatch(message["content"])
        if found is None:
            return odd
        first, joined, second = found.groups()
        if joined:
            length[len(first) + 2] = len(pieces)
        pieces += [int(first), int(second)] if joined else [int(first)]
        joins += [False, True] if joined else [False]
    if "split" in conversation and (sum(joins) != 1 or conversation["split"] not in length):
        return odd
    split = length[conversation["split"]] if "split" in conversation else None
    return Recipe(odd.holes, False, tuple(pieces), tuple(joins), tuple(PLACE[m["role"]] for m in messages), split)
