"""What a replacement or a fix would change, computed some rows at a time so that large files need no wait."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from studio.data.block import Block
from studio.data.chunk import ProblemCollector, convert_block
from studio.data.converter import Converter
from studio.data.dataset import Dataset
from studio.data.editing.cell_operations import CellOperation
from studio.data.editing.cells import cells
from studio.data.editing.excerpts import deleted_excerpt, difference, match_excerpt
from studio.data.editing.operations import Add, Delete, Fix, Replace, Step
from studio.data.editing.state import State
from studio.data.formats import formats
from studio.errors import DataError

BATCH_ROWS = 200  # rows looked at between two looks at the clock
MAX_EXAMPLES = 30  # rows shown of an answer
FILE_KINDS = frozenset({"legacy_encoding"})  # kinds that are no row's
CROSS_ROW_KINDS = frozenset({"duplicate", "near_duplicate"})  # kinds that no row has by itself


class Hits(NamedTuple):
    """The rows that a change affects. after: the position in the order to continue from; None at the end."""

    rows: list[int]
    matches: int
    examples: list[dict[str, Any]]
    after: int | None


def find(
    state: State, step: Replace, start: int = 0, seconds: float | None = None, examples: int = MAX_EXAMPLES
) -> Hits:
    """The rows from a place in the order on that a replacement changes. seconds: after which the answer is given."""
    rows, num_matches, excerpts = [], 0, []
    deadline = None if seconds is None else time.process_time() + seconds
    needle = None
    if step.case and not step.regex:
        needle = json.dumps(step.find, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")
    step.pattern  # noqa: B018 - refused before the first row
    for n, row in enumerate(state.order[start:].tolist()):
        if deadline is not None and n and not n % BATCH_ROWS and time.process_time() > deadline:
            return Hits(rows, num_matches, excerpts, start + n)
        if needle is not None and not state.changed(row):
            line = state.base.line(row)
            if needle not in line and b"\\u" not in line:
                continue
        found = ((cell, list(step.matches_in(cell.text))) for cell in cells(state.value(row), step.skipped, step.only))
        matched = [(cell, matches) for cell, matches in found if matches]
        if matched:
            rows.append(row)
            num_matches += sum(len(matches) for _, matches in matched)
            if len(excerpts) < examples:
                cell, matches = matched[0]
                parts, more = match_excerpt(cell.text, matches), len(matched) - 1
                excerpts.append(
                    {"row": row, "path": list(cell.path), "label": cell.label, "parts": parts, "more": more}
                )
    return Hits(rows, num_matches, excerpts, None)


def fix(
    state: State,
    dataset: Dataset,
    step: Fix,
    start: int = 0,
    seconds: float | None = None,
    examples: int = MAX_EXAMPLES,
) -> Hits:
    """The rows that a fix touches, of those that have its kind of problem still."""
    if step.kind in FILE_KINDS:
        hint = "Set the encoding, or save the file as UTF-8."
        raise DataError(f"{step.kind} is a fault of the whole file, not of some rows.", hint, "kind")
    rows, excerpts = [], []
    deadline = None if seconds is None else time.process_time() + seconds
    candidates = [row for row in _rows_with_kind(state, dataset, step.kind) if state.exists(row)]
    if step.rows is not None:
        candidates = sorted(set(candidates) & set(step.rows))
    for start_row in range(start, len(candidates), BATCH_ROWS):
        if deadline is not None and start_row > start and time.process_time() > deadline:
            return Hits(rows, len(rows), excerpts, start_row)
        for row in _still_faulty(state, step.kind, candidates[start_row : start_row + BATCH_ROWS]):
            if step.way == "delete":
                rows.append(row)
                value = state.shown(row)
            else:
                value = None if state.broken(row) else state.value(row)
                fixed = step.apply(value)
                if value is None or fixed is value:
                    continue
                rows.append(row)
            if len(excerpts) < examples:
                shown = deleted_excerpt(value) if step.way == "delete" else difference(value, fixed)
                excerpts.append({"row": row, **shown})
    return Hits(rows, len(rows), excerpts, None)


def _rows_with_kind(state: State, dataset: Dataset, kind: str) -> list[int]:
    """The rows with a kind of problem when the file was read; of duplicates, those whose original still exists."""
    if kind != "duplicate":
        return dataset.by_kind.get(kind, np.empty(0, np.int64)).tolist()
    numbers = dataset.conversations.row_numbers
    same = np.array([state.exists(row) and not state.changed(row) for row in numbers.tolist()], bool)
    _, first = np.unique(dataset.exact[same], return_index=True)
    return np.delete(numbers[same], first).tolist()


def _still_faulty(state: State, kind: str, rows: list[int]) -> list[int]:
    """Those that still have the problem; an unchanged row has."""
    changed = {row for row in rows if state.changed(row)}
    if not changed:
        return rows
    if kind in CROSS_ROW_KINDS:
        return [row for row in rows if row not in changed]
    listed = sorted(changed)
    again = {listed[n - 1] for n in check_rows(state, listed)[0].rows.get(kind, ())}
    return [row for row in rows if row not in changed or row in again]


def check_rows(state: State, rows: list[int]) -> tuple[ProblemCollector, pa.Table]:
    """(problems, conversations of the usable rows) of these rows in their current state; both number them 1, 2, …"""
    problems, block = ProblemCollector(), Block(lines=None)
    for n, row in enumerate(rows):
        broken = state.broken(row)
        block.rows.append(None if broken else state.value(row))
        if broken:
            block.bad[n] = state.base.broken[row]
    chunk = convert_block(block, 1, Converter(formats()[state.base.format], state.base.mapping), problems)
    return problems, chunk.table


def resolved(step: Step, state: State, dataset: Dataset) -> Step:
    """The operation with the rows and counts that it affects filled in. Raises DataError where it is impossible."""
    if isinstance(step, CellOperation):
        _check_row(state, step.row)
        step.check(state.value(step.row))
        return step
    if isinstance(step, Add):
        step.check()
        if step.after:
            _check_row(state, step.after)
        return step
    if isinstance(step, Delete):
        for row in step.rows:
            _check_row(state, row)
        if not step.rows:
            raise DataError("No row is named to be deleted.", "Name at least one.", "rows")
        return step.model_copy(update={"rows": sorted(set(step.rows))})
    if isinstance(step, Replace):
        hits = find(state, step, examples=0)
        if not hits.rows:
            hint = "Look at upper and lower case, or search in another column."
            raise DataError(f"{step.find[:80]!r} stands nowhere in these rows.", hint, "find")
        return step.model_copy(update={"rows": len(hits.rows), "matches": hits.matches})
    hits = fix(state, dataset, step, examples=0)
    if not hits.rows:
        raise DataError(
            "No row is left with this problem." if step.way == "delete" else "None of its rows can be mended this way.",
            "Look at the rows; what is left is mended by hand, or deleted.",
            "kind",
        )
    return step.model_copy(update={"rows": hits.rows})


def _check_row(state: State, row: int) -> None:
    if not state.exists(row):
        known = row <= len(state.base) or row in state.added
        hint = f"There are {len(state.order):,} rows."
        raise DataError(f"Row {row} was deleted." if known else f"There is no row {row}.", hint, "row")


def pages(state: State, chosen: np.ndarray, start: int, count: int) -> Iterator[tuple[int, Any]]:
    """(number, value) of some rows; of a row that could not be parsed, the value is its text."""
    for row in chosen[start : start + count].tolist():
        yield row, state.shown(row)
