"""Watched: a row that notes which of its columns were asked for. So it is known, and told, which ones a format leaves out."""

from __future__ import annotations

from typing import Any

from studio.data.roles import ROLE_KEYS


class TrackedRow(dict[str, Any]):
    """seen: the columns asked for; shared with every row that is made from this one by `|`."""

    seen: set[str]

    def __init__(self, row: dict[str, Any], seen: set[str], path: str = ""):
        super().__init__(row)
        self.seen, self.path = seen, path

    def __getitem__(self, key: str) -> Any:
        self.seen.add(self.path + key)
        return _tracked(super().__getitem__(key), self.seen, f"{self.path}{key}")

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401, so that it is seen

    def __or__(self, other: dict[str, Any]) -> TrackedRow:  # type: ignore[override]
        return TrackedRow(dict.__or__(self, other), self.seen, self.path)


def without(row: dict[str, Any], *names: str | None) -> dict[str, Any]:
    """The row without these columns; the others are not asked for by that."""
    left = {key: value for key, value in row.items() if key not in names}
    return TrackedRow(left, row.seen, row.path) if isinstance(row, TrackedRow) else left


def _tracked(value: Any, seen: set[str], path: str) -> Any:
    """The turns of a list are watched too, as `messages[].weight`."""
    if type(value) is list and value and all(type(one) is dict and _speaks(one) for one in value):
        return [TrackedRow(one, seen, f"{path}[].") for one in value]
    return value


def _speaks(turn: dict[str, Any]) -> bool:
    return any(key in turn for key in ROLE_KEYS)


def names_of(row: dict[str, Any]) -> list[str]:
    """The columns of a row, and the keys of the turns in its lists, where these hold anything."""
    names = []
    for key, value in row.items():
        if value in (None, "", [], {}):
            continue
        names.append(str(key))
        if type(value) is list and all(type(one) is dict and _speaks(one) for one in value):
            names += dict.fromkeys(
                f"{key}[].{inner}" for turn in value for inner, said in turn.items() if said not in (None, "", [], {})
            )
    return names
