"""What the data editor shows: what is not saved, what undo would do, a row in short and in full."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from studio.data.editing import scan
from studio.data.editing.cell_operations import CellOperation
from studio.data.editing.cells import cells, keys_of, turn_lists
from studio.data.editing.operations import Add, Delete, Replace, Step
from studio.data.editing.state import State
from studio.ui.data_rows import PAGE, SHORT

Question = dict[str, Any]


def bar_of(state: State) -> Question:
    """What is not saved, and what undo and redo would do."""
    return {
        "revision": state.revision,
        "changes": len(state.steps),
        "counts": state.counts(),
        "undo": _described(state.steps[-1]) if state.steps else None,
        "redo": _described(state.undone[-1]) if state.undone else None,
        "unreadable": sum(state.exists(row) and state.broken(row) for row in state.base.broken),
    }


def _described(step: Step) -> Question:
    """An operation in short, for the page to say in its language."""
    described: Question = {"op": step.op}
    if isinstance(step, CellOperation):
        described |= {"row": step.row, "field": str(next((key for key in step.path if isinstance(key, str)), ""))}
    elif isinstance(step, Delete):
        described |= {"count": len(step.rows), "row": step.rows[0]}
    elif isinstance(step, Add):
        described |= {"row": step.after}
    elif isinstance(step, Replace):
        described |= {"find": step.find[:40], "put": step.put[:40], "count": step.matches}
    else:
        described |= {"kind": step.kind, "way": step.way, "count": len(step.rows or ())}
    return described


def row_after(before: State, after: State) -> int | None:
    """The row to look at after a change: the new one, the changed one, or what a deletion gave back."""
    steps = after.steps if len(after.steps) >= len(before.steps) else before.steps
    last = steps[-1] if steps else None
    if isinstance(last, Add):
        row = max(after.added if after.exists(max(after.added, default=0)) else {last.after})
    elif isinstance(last, CellOperation):
        row = last.row
    elif isinstance(last, Delete) and last.rows:
        row = last.rows[0]
    else:
        return None
    return row if after.exists(row) else None


def roles_of(state: State) -> list[str]:
    """Who speaks in the first rows, for a search in one speaker's turns."""
    labels = [
        cell.label
        for _, value in scan.pages(state, state.order, 0, PAGE)
        for path, _ in turn_lists(value)
        for cell in cells(value)
        if cell.path[: len(path)] == path
    ]
    return list(dict.fromkeys(labels))


def in_short(value: Any) -> str:
    if isinstance(value, str):
        return value[:SHORT]
    return " · ".join(cell.text[:SHORT] for cell in islice((cell for cell in cells(value) if cell.text.strip()), 2))[
        :SHORT
    ]


def lists_of(value: Any) -> list[Question]:
    """Where the lists of turns of a row stand, and which of their keys say who speaks, and what."""
    found = [(list(path), *keys_of(turns)) for path, turns in turn_lists(value)]
    return [{"path": path, "who": who, "said": said} for path, who, said in found]


def texts_of(value: Any) -> dict[str, str]:
    """A row's values that are no text, as JSON by their path as JSON: a browser rounds numbers and drops .0."""
    fields = [((key,), item) for key, item in value.items()] if isinstance(value, dict) else [((), value)]
    for path, turns in turn_lists(value):
        fields += [((*path, n, key), item) for n, turn in enumerate(turns) for key, item in turn.items()]
    return {
        json.dumps(path, ensure_ascii=False, separators=(",", ":")): json.dumps(
            item, ensure_ascii=False, indent=1, default=str
        )
        for path, item in fields
        if not isinstance(item, str)
    }


def text_of(value: Any, state: State, row: int, broken: bool) -> str:
    """The row as JSON; of one that is no data the text that stands there."""
    return str(state.base.broken[row][1]) if broken else json.dumps(value, ensure_ascii=False, indent=1, default=str)
