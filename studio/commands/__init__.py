"""The terminal: one module a group of commands. Each has add(commands) and is found by looking into this folder.
A module called as the command that is given is loaded alone, which saves most of a quick command's time.

A command has `run`, a function of the parsed arguments that returns a JSON-able answer, and may have `show`, which
prints that answer for people. Raise StudioError for a refused order (exit 2), Failed(answer) for a job that failed
(exit 1).
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from studio.errors import DataError
from studio.home import write_atomic

RUN = "a run's id, a unique part of it, or last"
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


class Failed(Exception):
    """The job ran and failed; the answer is printed all the same, the exit status is 1."""

    def __init__(self, answer: Any):
        super().__init__(str(answer))
        self.answer = answer


class Commands:
    """The commands of a parser. common: the options that each of them has."""

    def __init__(self, parsers: Any, common: ArgumentParser):
        self.parsers = parsers
        self.common = common

    def add(
        self, name: str, about: str, run: Callable[[Namespace], Any], show: Callable[[Any], None] | None = None
    ) -> ArgumentParser:
        """The parser of a new command, to which its own options are added."""
        parser: ArgumentParser = self.parsers.add_parser(name, parents=[self.common], help=about)
        parser.set_defaults(run=run, show=show)
        return parser


def add_settings(parser: ArgumentParser, about: str = "change the order: --set method.rank=16") -> None:
    """--set KEY=VALUE, any number of times; args.settings has them."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=about)


def add_reading_options(parser: ArgumentParser) -> None:
    """--format, --encoding and --column: how a data file is read."""
    parser.add_argument("--format", default="auto", metavar="F", help="auto, or one of `formats`")
    parser.add_argument(
        "--encoding",
        default="auto",
        metavar="E",
        help="of a text file, such as cp1251; auto stops where it is not sure",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="PART=COLUMN",
        help="name a column by hand: --column prompt=frage",
    )


def mapping_of(args: Namespace) -> dict[str, str] | None:
    """The columns named with --column. Raises DataError for one that is not PART=COLUMN."""
    columns = {}
    for given in args.column:
        part, sign, columns[part] = given.partition("=")
        if not (part and sign and columns[part]):
            raise DataError(f"--column {given!r} names no column.", "Write it as --column prompt=frage.", "--column")
    return columns or None


def tell(progress: dict[str, Any]) -> None:
    """Print the progress of a job beside a run on one line of standard error."""
    print(f"\r{progress['doing']} {progress['done']}/{progress['of']} ", end="", file=sys.stderr, flush=True)


def tell_count(done: int, total: int) -> None:
    print(f"\r{done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def given(prompt: str | None, **settings: Any) -> dict[str, Any]:
    """The settings that were given, with the text of the prompt's file."""
    settings["prompt"] = Path(prompt).expanduser().read_text(encoding="utf-8") if prompt else None
    return {key: value for key, value in settings.items() if value is not None}


def write_new(out: Path, text: str) -> None:
    """Write the file OUT, which is not there yet. Raises DataError."""
    hint = "Give another path."
    if out.exists():
        raise DataError(f"{out} stands there already.", hint, "OUT")
    try:
        write_atomic(out, text)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}.", hint, "OUT") from error


def print_table(rows: list[list[str]], indent: str = "", right: Collection[int] = ()) -> None:
    """Rows of equal length, the heads first, in columns as wide as they need. right: columns that are set to it."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        line = [cell.rjust(width) if n in right else cell.ljust(width) for n, (cell, width) in enumerate(cells)]
        print(indent + "  ".join(line).rstrip())


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 row, 1,200 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """Bytes for people: 6.30 GiB."""
    for unit, name in UNITS:
        if abs(count) >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{int(count)} B"
