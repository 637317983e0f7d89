"""The data editor of the Data tab: rows with their edits, a change, the preview of a replacement, the new file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from studio import config
from studio.config import RunConfig
from studio.data.chunk import from_row
from studio.data.dataset_info import resolve_entry
from studio.data.editing import scan
from studio.data.editing.log import Edits
from studio.data.editing.operations import Fix, Replace, operation
from studio.data.editing.saving import save
from studio.data.editing.state import State
from studio.data.editing.typed import meant
from studio.errors import OrderError, StudioError
from studio.json_text import whole_number
from studio.ui import files, measure, rights, words
from studio.ui.data_edit_view import bar_of, in_short, lists_of, roles_of, row_after, text_of, texts_of
from studio.ui.data_rows import PAGE, conversation_of, explained, tokens_of

Question = dict[str, Any]
SCAN_SECONDS = 0.15  # seconds of processor time that a question about all rows takes; the page then asks on from there
FIELDS = ("find", "put", "regex", "case", "only", "skip")


@rights.read(waits=True)
def edit_rows(question: Question) -> Question:
    """{order, start, kind} -> some rows in short as they stand now, their count, and what is not saved; or {error}."""
    return _answered(_rows, question)


@rights.read(waits=True)
def edit_row(question: Question) -> Question:
    """{order, row} -> one row whole, what is wrong with it now, and the tokens it would be trained on; or {error}."""
    return _answered(_row, question)


@rights.read(waits=True)
def edit_find(question: Question) -> Question:
    """{order, find, put, regex, case, only, start} -> what would be replaced and where to go on, or {error}."""
    return _answered(_find, question)


@rights.read(waits=True)
def edit_fix(question: Question) -> Question:
    """{order, kind, way, start} -> what a fix of one kind of problem would change, as edit_find; or {error}."""
    return _answered(_fix, question)


@rights.job(waits=True)
def data_edit(question: Question) -> Question:
    """Apply a change: an operation, or {"op": undo, redo or discard}.

    {order, revision, fingerprint, change} -> what is not saved now, and the row it was about. change: as typed.meant.
    """
    run_config = _wanted(question)
    edits = _edits(run_config)
    change = question.get("change")
    if not isinstance(change, dict):
        raise OrderError("The question names no change.", "Ask as the page does.", "change")
    before = edits.state()
    state = edits.change(meant(change, before, edits.dataset), _revision(question), _fingerprint(question))
    return {**bar_of(state), "fingerprint": edits.dataset.fingerprint, "row": row_after(before, state)}


@rights.job(waits=True)
def data_save(question: Question) -> Question:
    """{order, revision, fingerprint} -> the new file: {source, name, bytes, rows, fingerprint, left_out, mapping}."""
    run_config = _wanted(question)
    record = save(_edits(run_config), _revision(question), _fingerprint(question))
    return {
        "source": record["file"],
        "name": Path(record["file"]).name,
        "bytes": record["bytes"],
        "rows": record["rows"],
        "fingerprint": record["sha256"],
        "left_out": len(record["left_out"]),
        "mapping": _mapping(run_config),
    }


def _mapping(run_config: RunConfig) -> Question | None:
    """The columns of an entry of dataset_info.json, which the new file is no part of; None for any other source."""
    source = run_config.data.sources()[0].source
    entry = resolve_entry(source, run_config.data.mapping)[1] if run_config.data.mapping is None else None
    return {key: value for key, value in entry.items() if key in ("columns", "tags", "formatting")} if entry else None


def _wanted(question: Question) -> RunConfig:
    """The order of a question, if it may be asked. Raises OrderError."""
    order = question.get("order") if isinstance(question, dict) else None
    if not measure.names_data(order):
        raise OrderError("No data is chosen.", "Choose a data set on the Data tab.", "data.train")
    run_config = config.build({"data": order["data"], "model": order.get("model", "starter")})  # type: ignore[index]
    files.allow(run_config)
    return run_config


def _edits(run_config: RunConfig) -> Edits:
    source = run_config.data.sources()[0].source
    dataset = measure.read(source, run_config)
    return Edits(dataset, run_config.data.format, run_config.data.mapping, run_config.data.encoding)


def _revision(question: Question) -> int:
    seen = question.get("revision")
    if not isinstance(seen, int) or isinstance(seen, bool):
        hint = "Load the page again."
        raise OrderError("The question does not say which revision of the rows was seen.", hint, "revision")
    return seen


def _fingerprint(question: Question) -> str | None:
    """The fingerprint of the content that was seen; None where the question does not say."""
    seen = question.get("fingerprint")
    return seen if isinstance(seen, str) and re.fullmatch(r"[\w-]{1,100}", seen) else None


def _answered(job: Callable[[RunConfig, Edits, State, Question], Question], question: Question) -> Question:
    lang = words.language(question.get("lang"))
    try:
        run_config = _wanted(question)
        edits = _edits(run_config)
        return job(run_config, edits, edits.state(), question)
    except StudioError as error:
        return {"error": words.explain(error, lang)}


def _rows(run_config: RunConfig, edits: Edits, state: State, question: Question) -> Question:
    kind = str(question.get("kind") or "")
    chosen = (
        state.order[np.isin(state.order, edits.dataset.by_kind.get(kind, np.empty(0, np.int64)))]
        if kind
        else state.order
    )
    start = whole_number(question.get("start"))
    if row := whole_number(question.get("around")):  # the page of rows that a row stands on
        at = np.flatnonzero(chosen == row)
        start = int(at[0]) // PAGE * PAGE if len(at) else start
    faults = {problem.row for problem in edits.dataset.problems}
    shown = [
        {
            "row": row,
            "text": in_short(value),
            "fault": row in faults and not state.changed(row),
            "added": row in state.added,
            "changed": row in state.edits_by_row,
        }
        for row, value in scan.pages(state, chosen, start, PAGE)
    ]
    return {
        **bar_of(state),
        "count": len(chosen),
        "start": start,
        "rows": shown,
        "columns": edits.dataset.columns,
        "roles": roles_of(state),
        "fingerprint": edits.dataset.fingerprint,
        "from": Path(edits.dataset.source).name,
    }


def _row(run_config: RunConfig, edits: Edits, state: State, question: Question) -> Question:
    row = whole_number(question.get("row"))
    if not state.exists(row):
        raise OrderError(f"There is no row {row}.", "It may have been deleted in another tab.", "row")
    broken = state.broken(row)
    value = None if broken else state.value(row)
    found, table = scan.check_rows(state, [row])
    lang = words.language(question.get("lang"))
    answer = {
        "revision": state.revision,
        "row": row,
        "value": value,
        "text": text_of(value, state, row, broken),
        "lists": lists_of(value),
        "texts": texts_of(value),
        "missing": [name for name in edits.dataset.columns if isinstance(value, dict) and name not in value],
        "added": row in state.added,
        "changed": row in state.edits_by_row,
        "problems": [explained(problem, lang) | {"severity": problem.severity} for problem in found.problems],
    }
    if not table.num_rows:
        return answer | {"refused": True}
    conversation = from_row(table.to_pylist()[0])
    answer |= conversation_of(conversation)
    try:
        return answer | tokens_of(run_config, conversation)
    except StudioError as error:
        return answer | {"fault": words.explain(error, lang)}


def _find(run_config: RunConfig, edits: Edits, state: State, question: Question) -> Question:
    given = {name: question[name] for name in FIELDS if question.get(name) is not None}
    step = operation({"skip": edits.dataset.unused, **given, "op": "replace"})
    assert isinstance(step, Replace)
    return _hits(state, scan.find(state, step, whole_number(question.get("start")), SCAN_SECONDS), len(state.order))


def _fix(run_config: RunConfig, edits: Edits, state: State, question: Question) -> Question:
    step = operation({"op": "fix", "kind": question.get("kind"), "way": question.get("way")})
    assert isinstance(step, Fix)
    of = len(edits.dataset.by_kind.get(step.kind, ()))
    return _hits(state, scan.fix(state, edits.dataset, step, whole_number(question.get("start")), SCAN_SECONDS), of)


def _hits(state: State, hits: scan.Hits, of: int) -> Question:
    return {
        "revision": state.revision,
        "rows": len(hits.rows),
        "matches": hits.matches,
        "examples": hits.examples,
        "after": hits.after,
        "of": of,
    }
