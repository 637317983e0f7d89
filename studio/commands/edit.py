"""edit: carry out operations on the rows of a data file and write the result as a new file."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from studio import data
from studio.commands import Commands, add_reading_options, counted, mapping_of
from studio.data.editing.operations import operation
from studio.data.editing.record import describe_counts
from studio.data.editing.rows import rows_of
from studio.data.editing.saving import write
from studio.data.editing.scan import resolved
from studio.data.editing.state import State
from studio.errors import DataError, reason_of


def add(commands: Commands) -> None:
    about = "change rows of a data file, as the Data tab's editor does, into a new file"
    parser = commands.add("edit", about, edit, _show)
    parser.add_argument(
        "file", metavar="FILE", help="a file, sample:NAME, a Hub id with :split, or dataset_info.json:NAME"
    )
    parser.add_argument(
        "--ops", metavar="OPS", required=True, help="JSON Lines of operations, one a line; - reads standard input"
    )
    parser.add_argument(
        "--out", metavar="NEW", help="the new file, .jsonl; left out: NAME.edited.jsonl among the uploads"
    )
    add_reading_options(parser)


def edit(args: Namespace) -> dict[str, Any]:
    """The record of the new file, without its log: file, rows, bytes, sha256, from, operations, counts, left_out."""
    mapping = mapping_of(args)
    out = None if args.out is None else Path(args.out).expanduser()
    if out is not None and (out.suffix != ".jsonl" or out.exists() or not out.parent.is_dir()):
        why = "does not end in .jsonl"
        if out.exists():
            why = "exists already"
        elif out.suffix == ".jsonl":
            why = "lies in no folder that there is"
        hint = "Give a new name that ends in .jsonl, in a folder that there is."
        raise DataError(f"{args.out} {why}.", hint, "--out")
    operations = _operations(args.ops)
    dataset = data.read(args.file, args.format, mapping, encoding=args.encoding)
    state = State(rows_of(args.file, dataset, args.format, mapping, args.encoding), [])
    for number, given in enumerate(operations, 1):
        try:
            state.apply(resolved(operation(given), state, dataset))
        except DataError as error:
            raise DataError(f"Operation {number}: {error.message}", error.hint, error.where) from error
    return {key: value for key, value in write(dataset, state, out).items() if key != "log"}


def _operations(name: str) -> list[dict[str, Any]]:
    """The operations in a file of JSON Lines. Raises DataError that names the line."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give a file of JSON Lines, one operation a line."
        raise DataError(f"{name} cannot be read: {reason_of(error)}.", hint, "--ops") from error
    operations = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                operations.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                hint = 'Write each operation as {"op": …} on one line.'
                raise DataError(f"Line {number} of {name} is not JSON: {error}.", hint, f"{name}:{number}") from error
    return operations


def _show(answer: dict[str, Any]) -> None:
    done = describe_counts(answer["counts"])
    print(f"{answer['file']}: {counted(answer['rows'], 'row')}, edited from {answer['from']['source']}: {done}.")
    print(f"sha256 {answer['sha256']}")
    if left := answer["left_out"]:
        print(f"{counted(len(left), 'row')} that could not be read, left out: {', '.join(map(str, left[:20]))}")
