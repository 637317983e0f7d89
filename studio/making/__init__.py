"""Rows out of documents, written by another model: a folder under home/made with the documents' passages and the rows.

passages.json: the passages. rows.jsonl: a row a line as it is written, {question, answer, passage, marks}. A key comes
from STUDIO_MAKE_KEY alone and is written nowhere. Nothing is sent without a command or a click.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from studio import json_text
from studio.errors import DataError, ModelError, RunError
from studio.home import inside, numbered, slug, subfolder, write_atomic
from studio.judge.endpoint import Endpoint
from studio.making.document import Passage, passages, text_of
from studio.making.rows import KEY, MakeOrder, Row, filled, marked, order_of, read_reply
from studio.side_job import FolderJob, Progress

FAILURES = 3  # passages in a row that got no reply: the rest is not asked


class Writer(Endpoint):
    """The endpoint that writes rows."""

    name = "The model that writes rows"
    section = "make"
    key = KEY
    reply_tokens = 4096


class Making(FolderJob):
    """The writing of rows about one document."""

    def __init__(self, folder: Path, progress: Progress = lambda _: None):
        super().__init__(folder, folder.name, "The writing of rows", progress)

    @property
    def rows_file(self) -> Path:
        return self.folder / "rows.jsonl"

    def rows(self) -> list[Row]:
        return [
            Row(row["question"], row["answer"], row["passage"], tuple(row["marks"]))
            for row in json_text.read_lines(self.rows_file)
        ]

    def passages(self) -> list[Passage]:
        return [Passage(*entry) for entry in json_text.read_or_default(self.folder / "passages.json", [])]


def folder(name: str) -> Path:
    """The folder of a document by its id. Raises DataError where there is none."""
    found = inside(subfolder("made"), name)
    if not (found / "passages.json").is_file():
        raise DataError(f"There is no document {name!r} here.", "Choose the document again.", "id")
    return found


def begin(document: Path, name: str = "") -> Making:
    """A new folder for a document, cut into passages; `add` puts more in. Raises DataError."""
    parts = passages(text_of(document), name or document.name)
    stem = slug(Path(name or document.name).stem, "document")[:48]
    for target in numbered(subfolder("made"), stem):
        try:
            target.mkdir()
        except FileExistsError:
            continue
        write_atomic(target / "passages.json", json.dumps(parts, ensure_ascii=False))
        return Making(target)
    raise DataError(f"There are too many documents named {stem}.", "Give it another name.", "name")


def add(task: Making, document: Path, name: str = "") -> None:
    """Put the passages of one more document behind those that are there. Raises DataError."""
    parts = [*task.passages(), *passages(text_of(document), name or document.name)]
    write_atomic(task.folder / "passages.json", json.dumps(parts, ensure_ascii=False))


def write(task: Making, order: MakeOrder, each: Callable[[Row], None] = lambda row: None) -> dict[str, Any]:
    """{rows, marked, passages, of, unread, why, state}: ask about one passage after the other; kept as results.json.

    unread: passages whose reply held no row. Raises StudioError where not one row was written.
    """
    parts, until = task.passages()[: order.passages], time.monotonic() + 60 * order.minutes
    done = unread = failures = 0
    why, state = "", "done"
    with task.working(device=False):
        writer = Writer(order, task.folder / "cache.jsonl", task.stop_requested)
        rows = task.rows()
        known = {row.passage for row in rows}  # of an earlier, stopped writing
        for number, passage in enumerate(parts):
            if task.stop_requested() or time.monotonic() > until:
                state = "stopped"
                break
            if number in known:
                done += 1
                continue
            task.tell("writing", number, len(parts))
            values = passage._asdict() | {"count": order.per_passage, "passage": passage.text}
            try:
                pairs = read_reply(writer.ask(filled(order.prompt, values)))
            except RunError:
                state = "stopped"
                break
            except ModelError as error:
                failures, why = failures + 1, error.message
                if writer.refused or failures == FAILURES:
                    break
                continue
            done, failures, unread = done + 1, 0, unread + (not pairs)
            for question, answer in pairs[: order.per_passage]:
                row = marked(question, answer, number, passage.text, rows)
                rows.append(row)
                json_text.append_line(task.rows_file, row._asdict())
                each(row)
        if not rows:
            if state == "stopped":
                raise task.stopped()
            hint = why or "No reply held rows: try a larger model, or look at the prompt."
            raise ModelError("Not one row was written.", hint, "make")
        flagged = sum(1 for row in rows if row.marks)
        answer = {"rows": len(rows), "marked": flagged, "passages": done, "of": len(parts)}
        return task.keep(answer | {"unread": unread, "why": why, "state": state})


def training_rows(rows: Iterable[Row | dict[str, str]]) -> list[dict[str, str]]:
    """Rows as a data file holds them."""
    plain = [row._asdict() if isinstance(row, Row) else row for row in rows]
    return [{"question": row["question"], "answer": row["answer"]} for row in plain]


__all__ = ["KEY", "MakeOrder", "Making", "Writer", "add", "begin", "folder", "order_of", "training_rows", "write"]
