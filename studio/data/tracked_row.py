"""TrackedRow: a row that records which of its columns are read, to report those that a format ignores."""

from __future__ import annotations

from typing import Any

from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS


class TrackedRow(dict[str, Any]):
    """accessed: the columns read so far; shared with rows made from this one by `|`."""

    accessed: set[str]

    def __init__(self, row: dict[str, Any], accessed: set[str], path: str = ""):
        super().__init__(row)
        self.accessed, self.path = accessed, path

    def __getitem__(self, key: str) -> Any:
        self.accessed.add(self.path + key)
        return _tracked(super().__getitem__(key), self.accessed, f"{self.path}{key}")

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401, so that it is seen

    def __or__(self, other: dict[str, Any]) -> TrackedRow:  # type: ignore[override]
        return TrackedRow(dict.__or__(self, other), self.accessed, self.path)


def mark_read(row: dict[str, Any], *names: str) -> None:
    """Count these columns of a TrackedRow as read, after they were only looked at."""
    if isinstance(row, TrackedRow):
        row.accessed.update(row.path + name for name in names)


def without(row: dict[str, Any], *names: str | None) -> dict[str, Any]:
    """The row without these columns; the others do not count as read."""
    remaining = {key: value for key, value in row.items() if key not in names}
    return TrackedRow(remaining, row.accessed, row.path) if isinstance(row, TrackedRow) else remaining


def _tracked(value: Any, accessed: set[str], path: str) -> Any:
    """The turns of a list are tracked too, as `messages[].weight`."""
    if type(value) is list and value and all(type(turn) is dict and _is_turn(turn, path) for turn in value):
        return [TrackedRow(turn, accessed, f"{path}[].") for turn in value]
    return value


def _is_turn(turn: dict[str, Any], column: str) -> bool:
    return column in MESSAGE_COLUMNS or any(key in turn for key in ROLE_KEYS)


def names_of(row: dict[str, Any]) -> list[str]:
    """The columns of a row, and the keys of the turns in its lists, where these hold anything."""
    names = []
    for key, value in row.items():
        if value in (None, "", [], {}):
            continue
        names.append(str(key))
        if type(value) is list and all(type(turn) is dict and _is_turn(turn, key) for turn in value):
            names += dict.fromkeys(
                f"{key}[].{inner}" for turn in value for inner, cell in turn.items() if cell not in (None, "", [], {})
            )
    return names
