"""paste: a data file of copied cells, a Markdown table, or lines of questions and answers."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from studio.commands import Commands, write_new
from studio.data.pasting import HEADERS, read_pasted
from studio.errors import DataError


def add(commands: Commands) -> None:
    about = "a data file of cells copied from a table, or of lines with Q: and A:"
    parser = commands.add("paste", about, paste, show)
    parser.add_argument("out", metavar="OUT", help="where to; its ending is added")
    parser.add_argument("text", nargs="?", default="-", metavar="FILE", help="what was copied; - reads standard input")
    parser.add_argument("--header", choices=HEADERS, default="auto", help="what the first line of a table holds")


def paste(args: Namespace) -> dict[str, Any]:
    """{path, rows, header}; rows: None where the text was kept as it stands."""
    try:
        copied = sys.stdin.buffer.read() if args.text == "-" else Path(args.text).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"{args.text} cannot be read: {error.strerror}.", "Give another file.", "FILE") from error
    pasted = read_pasted(copied.decode("utf-8", "replace"), args.header)
    out = Path(args.out).expanduser().absolute()
    out = out if out.suffix == f".{pasted.ending}" else out.with_name(f"{out.name}.{pasted.ending}")
    write_new(out, pasted.text)
    return {"path": str(out), "rows": None if pasted.rows is None else len(pasted.rows), "header": pasted.header}


def show(answer: dict[str, Any]) -> None:
    print(f"{answer['path']}: {answer['rows'] or 'as it stands'}")
