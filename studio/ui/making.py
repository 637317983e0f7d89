"""Rows out of a document, on the Data tab: another model writes them, the owner reads and takes what is good."""

from __future__ import annotations

import os
from typing import Any

from starlette.responses import Response

from studio import making, side_process
from studio.data import new_files
from studio.json_text import whole_number
from studio.making.rows import PROMPT, small_note
from studio.ui import live, rights, uploads, words


@rights.job(waits=True)
def read_document(file: Any, name: str = "", id: str = "") -> dict[str, Any]:
    """Cut an uploaded document into passages, behind those of `id`; nothing is sent. Returns {id, passages}."""
    path = uploads.uploaded(file)
    try:
        if id:
            task = making.Making(making.folder(id))
            making.add(task, path, name or path.name)
        else:
            task = making.begin(path, name or path.name)
    finally:
        uploads.drop(path)
    return {"id": task.id, "passages": len(task.passages())}


@rights.job(waits=True)
def make_rows(id: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Begin to write rows about a document. settings: the command's (url, model, prompt, per_passage, …)."""
    task, order = making.Making(making.folder(id)), making.order_of(settings)
    side_process.begin(task, "make", order.model_dump(), device=False)
    return {"id": id, "state": "going"}


@rights.job()
def stop_making(id: str) -> dict[str, Any]:
    """End the writing; what was written stays. Returns {id, state}."""
    task = making.Making(making.folder(id))
    task.request_stop()
    return {"id": id, "state": "going" if task.going() else "stopped"}


@rights.job(waits=True)
def take_rows(id: str, rows: list[int]) -> dict[str, Any]:
    """A data set of the accepted rows, by their numbers from 0. Returns {source, name, rows}."""
    written = making.Making(making.folder(id)).rows()
    taken = [written[number] for number in sorted(set(rows)) if 0 <= number < len(written)]
    path = new_files.new_file(making.training_rows(taken), f"{id}-rows")
    return {"source": str(path), "name": path.name, "rows": len(taken)}


@rights.read()
def made(question: dict[str, Any]) -> Response:
    """{id, start, model, lang} -> {prompt, key, note, passages, state, doing, done, of, error, results, rows}.

    rows: from `start` on, each with its passage (heading, text, document). Without an id the first three alone.
    note: of a model too small by its name.
    """
    lang = words.language(question.get("lang"))
    answer: dict[str, Any] = {
        "prompt": PROMPT,
        "key": bool(os.environ.get(making.KEY)),
        "note": words.translate(small_note(str(question.get("model") or "")[:200]), lang),
    }
    if question.get("id"):
        task = making.Making(making.folder(str(question["id"])))
        start = whole_number(question.get("start"))
        parts = task.passages()
        answer |= task.status() | {"results": task.results(), "passages": len(parts)}
        answer["rows"] = [row._asdict() | parts[row.passage]._asdict() for row in task.rows()[start:]]
    return live.json_response(answer)
