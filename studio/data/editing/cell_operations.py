"""The operations on one row: set, insert, remove. Each is checked against the row, and a pure function of it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio import json_text
from studio.data.editing.cells import check_path, path_text, replace_at, value_at
from studio.errors import DataError

MAX_VALUE_CHARACTERS = 2_000_000  # characters of a value, as JSON
Row = Annotated[int, Field(ge=1, lt=2**53)]
Key = Annotated[str, Field(max_length=500)] | Annotated[int, Field(ge=0)]
ItemPath = Annotated[list[Key], Field(min_length=1, max_length=20)]


class Operation(BaseModel):
    """A line of the log."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Set(Operation):
    """Another value at a path in a row: a cell, a turn's words, a list of turns, or (no path) the whole row."""

    op: Literal["set"]
    row: Row
    path: Annotated[list[Key], Field(max_length=20)]
    value: Any

    def apply(self, value: Any) -> Any:
        return replace_at(value, tuple(self.path), self.value)

    def check(self, value: Any) -> None:
        """Raise DataError where it does not fit the row as it stands."""
        check_size(self.value, self.row)
        path = tuple(self.path)
        if not path:
            if not isinstance(self.value, (dict, list)) or not self.value:
                message = f"Row {self.row} must be an object with named fields, or a list of turns."
                hint = 'Write it as {"…": "…"}.'
                raise DataError(message, hint, "value")
            return
        check_path(value, path, self.row)
        try:
            before = value_at(value, path)
        except LookupError:
            return
        if isinstance(before, str) and not isinstance(self.value, str):
            message = f"{path_text(path)} of row {self.row} holds text; {type(self.value).__name__} was given."
            hint = "Write it as text."
            raise DataError(message, hint, "value")


class Insert(Operation):
    """A new item in a list of a row, such as a turn. path: where it will stand."""

    op: Literal["insert"]
    row: Row
    path: ItemPath
    value: Any

    def apply(self, value: Any) -> Any:
        *path, place = self.path
        items = value_at(value, tuple(path))
        return replace_at(value, tuple(path), [*items[:place], self.value, *items[place:]])

    def check(self, value: Any) -> None:
        """As Set.check."""
        check_size(self.value, self.row)
        _check_item(self, value, beyond=1)


class Remove(Operation):
    """An item taken out of a list of a row. The last one of a list stays."""

    op: Literal["remove"]
    row: Row
    path: ItemPath

    def apply(self, value: Any) -> Any:
        *path, place = self.path
        items = value_at(value, tuple(path))
        return replace_at(value, tuple(path), [*items[:place], *items[place + 1 :]])

    def check(self, value: Any) -> None:
        """As Set.check."""
        _check_item(self, value)
        if len(value_at(value, tuple(self.path[:-1]))) == 1:
            message = f"{path_text(tuple(self.path))} of row {self.row} is the only one of its list."
            hint = "Delete the row instead."
            raise DataError(message, hint, "path")


CellOperation = Set | Insert | Remove


def _check_item(step: Insert | Remove, value: Any, beyond: int = 0) -> None:
    """Raise DataError where the path names no item of a list in the row. beyond: places behind the last that count."""
    *path, place = step.path
    try:
        items = value_at(value, tuple(path))
    except LookupError:
        items = None
    if not isinstance(items, list) or not isinstance(place, int) or place >= len(items) + beyond:
        hint = "Load the page again, and choose one of its turns."
        raise DataError(f"{path_text(tuple(step.path))} of row {step.row} names no place in a list.", hint, "path")


def check_size(value: Any, row: int | None) -> None:
    try:
        size = len(json.dumps(json_text.check_depth(value, "The value")))
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError | json_text.NestingError):
            raise
        raise DataError("The value is no JSON.", "Write text, numbers, lists or objects.", "value") from error
    if size > MAX_VALUE_CHARACTERS:
        subject = f"Row {row}" if row else "The new row"
        hint = f"At most {MAX_VALUE_CHARACTERS:,} fit; part the text into several rows."
        raise DataError(f"{subject} would get {size:,} characters in one field.", hint, "value")
