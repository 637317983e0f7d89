"""The operations on rows: delete, add, replace, fix; with those on one row, each is a line of JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

import regex
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from studio import json_text
from studio.data.editing.cell_operations import Insert, Operation, Remove, Row, Set, check_size
from studio.data.editing.cells import map_texts
from studio.data.editing.fixes import FIXES, apply_fix
from studio.data.problem import KINDS
from studio.errors import DataError, reason_of
from studio.text.patterns import compile_pattern

# that a pattern may take for one text; ten times that when it is applied again, on a busier computer
PATTERN_SECONDS = 1.0
RowList = Annotated[list[Row], Field(max_length=5_000_000)]


class Delete(Operation):
    op: Literal["delete"]
    rows: RowList


class Add(Operation):
    """A new row behind another; 0: before the first. Its number is the next that no row has had."""

    op: Literal["add"]
    after: Annotated[int, Field(ge=0, lt=2**53)]
    value: Any

    def check(self) -> None:
        check_size(self.value, None)
        if not isinstance(self.value, (dict, list)) or not self.value:
            hint = 'Write it as {"…": "…"}.'
            raise DataError("A new row must be an object with named fields, or a list of turns.", hint, "value")


class TextMatch(NamedTuple):
    """A match in a text: where, and what stands there afterwards."""

    start: int
    stop: int
    text: str


class Replace(Operation):
    """Other words for what is found, in every text or in one column (or one speaker's turns) of all rows there are at
    that time.

    skip: columns left out. rows, matches: how many there were when it was done.
    """

    op: Literal["replace"]
    find: Annotated[str, Field(min_length=1, max_length=2000)]
    put: Annotated[str, Field(max_length=20_000)] = ""
    regex: bool = False
    case: bool = True
    only: Annotated[str, Field(max_length=500)] | None = None
    skip: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=5000)] = []
    rows: int = 0
    matches: int = 0

    def apply(self, value: Any) -> Any:
        return map_texts(value, lambda text: self.change(text, 10 * PATTERN_SECONDS), self.skipped, self.only)

    @cached_property
    def skipped(self) -> frozenset[str]:
        return frozenset(self.skip)

    @cached_property
    def pattern(self) -> Any:
        """Compiled. Raises DataError for what is no pattern, or finds nothing but emptiness."""
        if not self.regex:
            return re.compile(re.escape(self.find), 0 if self.case else re.IGNORECASE)
        try:
            compiled = compile_pattern(self.find, 0 if self.case else regex.IGNORECASE)
            empty = compiled.search("", timeout=PATTERN_SECONDS)
        except ValueError as error:
            hint = r"Put a \ before signs such as ( [ * + ?, or search for plain text."
            raise DataError(f"{self.find[:80]!r} is no pattern: {error}.", hint, "find") from error
        except TimeoutError:
            raise self._slow() from None
        if empty:
            hint = "Write a pattern that finds at least one character: + in place of *."
            raise DataError(f"{self.find[:80]!r} also finds an empty text.", hint, "find")
        return compiled

    def matches_in(self, text: str, seconds: float = PATTERN_SECONDS) -> Iterator[TextMatch]:
        """The matches in a text, in order. Raises DataError for a slow pattern, or for a group that is missing."""
        if not self.regex:
            for match in self.pattern.finditer(text):
                yield TextMatch(match.start(), match.end(), self.put)
            return
        try:
            for match in self.pattern.finditer(text, timeout=seconds, concurrent=True):
                if match.end() > match.start():
                    yield TextMatch(match.start(), match.end(), match.expand(self.put))
        except TimeoutError:
            raise self._slow() from None
        except (regex.error, IndexError, KeyError) as error:
            message = f"The replacement {self.put[:80]!r} does not fit the pattern: {reason_of(error)}."
            hint = r"Groups are named \1 or \g<name>."
            raise DataError(message, hint, "put") from error

    def change(self, text: str, seconds: float = PATTERN_SECONDS) -> str:
        """The text with its matches replaced. Raises DataError."""
        parts, at = [], 0
        for match in self.matches_in(text, seconds):
            parts += [text[at : match.start], match.text]
            at = match.stop
        return "".join([*parts, text[at:]]) if parts else text

    def _slow(self) -> DataError:
        hint = "Write it without repeats inside repeats, or search for plain text."
        return DataError(f"The pattern {self.find[:80]!r} takes too long on a text of these rows.", hint, "find")


class Fix(Operation):
    """Mend the rows that have a kind of problem, or delete them. rows: those touched; in an order None: all of them."""

    op: Literal["fix"]
    kind: str
    way: Literal["mend", "delete"]
    rows: RowList | None = None

    @model_validator(mode="after")
    def _known(self) -> Fix:
        if self.kind not in KINDS:
            raise ValueError(f"there is no kind of problem named {self.kind!r}")
        if self.way == "mend" and self.kind not in FIXES:
            raise ValueError(f"{self.kind} cannot be mended; its rows can be deleted")
        return self

    def apply(self, value: Any) -> Any:
        return apply_fix(self.kind, value)


Step = Set | Insert | Remove | Delete | Add | Replace | Fix
ADAPTER: TypeAdapter[Step] = TypeAdapter(Annotated[Step, Field(discriminator="op")])


def operation(values: Any) -> Step:
    """An operation from plain values. Raises DataError that names the field and what is wrong with it."""
    try:
        return ADAPTER.validate_python(json_text.check_depth(values, "The operation"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "op"
        known = "set, insert, remove, delete, add, replace or fix"
        hint = f'Write it as {{"op": …}} with op one of {known}.'
        raise DataError(f"The operation is not one: {where}: {first['msg']}.", hint, where) from error
