"""Rows inside something else: what a JSON document holds that is one object and no row itself."""

from __future__ import annotations

from typing import Any

from studio.data.formats import LISTS

DEEP = 4  # objects around the rows at most


def rows_within(value: Any, depth: int = 0) -> list[Any] | None:
    """The rows in an object, or None when it is a row, or it cannot be told which of its lists the rows are.

    {"version": 1, "data": [row, …]}, also deeper; {"data": {"columns": […], "data": [[cell, …], …]}}; columns as lists or,
    as pandas writes them, as {"0": cell, …}; {name: row, …}.
    """
    if not isinstance(value, dict) or any(name in value for name in LISTS) or depth > DEEP:
        return None
    return _split(value) or _only_list(value) or _columns(value) or _by_name(value) or _deeper(value, depth)


def _split(value: dict[str, Any]) -> list[Any] | None:
    """As pandas' to_json(orient="split") writes a table."""
    names, cells = value.get("columns"), value.get("data")
    if not (isinstance(names, list) and isinstance(cells, list) and all(isinstance(name, str) for name in names)):
        return None
    whole = all(isinstance(row, list) and len(row) == len(names) for row in cells)
    return [dict(zip(names, row, strict=True)) for row in cells] if whole else None


def _only_list(value: dict[str, Any]) -> list[Any] | None:
    lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v[:50])]
    described = isinstance(value.get("features"), list) and isinstance(value.get("rows"), list)  # an answer of the Hub's viewer
    return value["rows"] if described else lists[0] if len(lists) == 1 else None


def _columns(value: dict[str, Any]) -> list[Any] | None:
    columns = list(value.values())
    if len(columns) > 1 and all(isinstance(c, dict) and c and all(key.isdigit() for key in c) for c in columns) and len(set(map(tuple, columns))) == 1:
        columns = [list(c.values()) for c in columns]
    if len(columns) < 2 or not all(isinstance(c, list) for c in columns) or len(set(map(len, columns))) != 1:
        return None
    if any(isinstance(cell, dict) for c in columns for cell in c[:50]):
        return None  # several lists of rows
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _by_name(value: dict[str, Any]) -> list[Any] | None:
    rows = list(value.values())
    alike = len(rows) > 2 and all(isinstance(row, dict) and len(row) > 1 for row in rows) and len({frozenset(row) for row in rows}) == 1
    return rows if alike and not any(isinstance(cell, (dict, list)) for row in rows for cell in row.values()) else None


def _deeper(value: dict[str, Any], depth: int) -> list[Any] | None:
    found = [rows for rows in (rows_within(v, depth + 1) for v in value.values() if isinstance(v, dict)) if rows]
    return found[0] if len(found) == 1 and not any(isinstance(v, list) and v for v in value.values()) else None
