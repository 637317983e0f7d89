"""make: question and answer rows out of documents, written by a model behind an OpenAI-style endpoint."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from studio import json_text, making
from studio.commands import Commands, counted, given, tell
from studio.errors import DataError, OrderError
from studio.home import write_atomic
from studio.making.document import documents
from studio.making.rows import PROMPT, small_note
from studio.side_job import read_request


def add(commands: Commands) -> None:
    parser = commands.add("make", "question and answer rows out of documents, written by a model you name", make, show)
    parser.add_argument(
        "document", metavar="DOCUMENT", nargs="?", help="Markdown or text; PDF and Office by markitdown; a folder"
    )
    parser.add_argument("--endpoint", metavar="URL", help="an OpenAI-style endpoint, as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", metavar="NAME", help="the model's name there")
    parser.add_argument("--per-passage", type=int, metavar="N", help="rows of a passage (3)")
    parser.add_argument("--passages", type=int, metavar="N", help="the first N passages alone (200)")
    parser.add_argument("--prompt", metavar="FILE", help="another prompt, with {passage}")
    parser.add_argument("--per-minute", type=int, metavar="N", help="requests a minute at most (120)")
    parser.add_argument("--minutes", type=float, metavar="N", help="end after so many minutes (60)")
    parser.add_argument("--out", metavar="NEW", help="the data file, .jsonl; left out: beside DOCUMENT")
    parser.add_argument("--keep-marked", action="store_true", help="also rows that are unsupported or repeated")
    parser.add_argument("--show-prompt", action="store_true", help="print the prompt, and ask nothing")
    parser.add_argument("--request", metavar="FILE", help="the order as JSON, as the page has it; DOCUMENT is its id")


def make(args: Namespace) -> dict[str, Any]:
    """{path, rows, written, marked, passages, of, unread, why, state}; with --show-prompt: {prompt}."""
    if args.show_prompt:
        return {"prompt": PROMPT}
    if not args.document:
        raise OrderError("A document is not named.", "Give a file.", "document")
    if args.request:
        task = making.Making(making.folder(args.document))
        return making.write(task, making.order_of(read_request(args.request)))
    order, document = making.order_of(_settings(args)), Path(args.document).expanduser().absolute()
    if note := small_note(order.model):
        print(note, file=sys.stderr)
    out = Path(args.out).expanduser() if args.out else document.with_suffix(".rows.jsonl")
    if out.exists():
        raise DataError(f"{out} stands there already.", "Give another --out.", "out")
    task = _read(document)
    task.progress = tell
    answer = making.write(task, order)
    print(file=sys.stderr)
    kept = [row for row in task.rows() if args.keep_marked or not row.marks]
    lines = json_text.lines(making.training_rows(kept))
    try:
        write_atomic(out, lines)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}.", "Give another --out.", "out") from error
    return {"path": str(out), "rows": len(kept), "written": answer.pop("rows"), **answer}


def _read(path: Path) -> making.Making:
    """The passages of a document or of a folder's; what cannot be read of a folder is told and left out."""
    task = None
    refused = DataError(f"{path} holds no document of a known kind.", "Give another folder.", "document")
    for document in documents(path):
        try:
            if task is None:
                task = making.begin(document)
            else:
                making.add(task, document)
        except DataError as error:
            refused = error
            if path.is_dir():
                print(error, file=sys.stderr)
    if task is None:
        raise refused
    return task


def _settings(args: Namespace) -> dict[str, Any]:
    if not args.endpoint or not args.model:
        raise OrderError("A model is not named.", "Give --endpoint URL and --model NAME.", "make.url")
    return given(
        args.prompt,
        url=args.endpoint,
        model=args.model,
        per_passage=args.per_passage,
        passages=args.passages,
        per_minute=args.per_minute,
        minutes=args.minutes,
    )


def show(answer: dict[str, Any]) -> None:
    if "path" not in answer:
        print(answer.get("prompt", ""))
        return
    print(f"{answer['path']}: {answer['rows']} of {counted(answer['written'], 'row')}; {answer['marked']} marked")
    if answer["unread"]:
        print(f"{counted(answer['unread'], 'answer')} without rows.")
    if answer["why"]:
        print(answer["why"])
