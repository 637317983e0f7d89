"""python -m studio COMMAND: every job of the page, from a terminal."""

from __future__ import annotations

from studio import early_exit

if __name__ == "__main__":
    early_exit.begin()

# isort: split
import argparse
import difflib
import importlib
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import yaml

from studio import commands, credentials, home, plural, terminal
from studio.errors import StudioError, as_studio_error, reason_of
from studio.process import ended_in_order


class _UsageError(Exception):
    """The command line fits no command. args: the parser, and its message."""

    def report(self, as_json: bool) -> int:
        """Print it as any other refusal; returns the exit status."""
        parser, message = self.args
        hint = " ".join(parser.format_usage().split())
        if unknown := re.fullmatch(r"argument COMMAND: invalid choice: '(.*)' \(choose from (.*)\)", message):
            near = difflib.get_close_matches(unknown[1], re.findall(r"[\w-]+", unknown[2]), n=1)
            message = f"There is no command {unknown[1]!r}."
            hint = f"Did you mean {near[0]}?" if near else f"{parser.prog} --help lists them."
        return _refused(StudioError(message[0].upper() + message[1:], hint), argparse.Namespace(json=as_json))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(self, message)


def parser(command: str = "") -> argparse.ArgumentParser:
    """The parser with every command of studio/commands/ in it, or only those of the module called as `command`."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", help="print one JSON document on standard output, and nothing else there"
    )
    common.add_argument(
        "--home", metavar="DIR", help="where runs, models and data live (else STUDIO_HOME, else ~/.fine-tuning-studio)"
    )
    top = _Parser(
        prog="python -m studio", description="Fine-Tuning Studio: your own language model, from the terminal."
    )
    parsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    alone = command in modules
    for name in [command] if alone else modules:
        importlib.import_module(f"studio.commands.{name}").add(commands.Commands(parsers, common))
    return parser() if alone and command not in parsers.choices else top


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the job failed, 2 the input or the order was refused."""
    credentials.receive()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        args = parser(given[0] if given else "").parse_args(given)
    except _UsageError as error:
        return error.report("--json" in given)
    early_exit.end()
    if args.home:
        os.environ["STUDIO_HOME"] = args.home
    # None: closed before the start, as by >&-
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name that is no UTF-8 is shown, not stumbled over
    sys.stdout, sys.stderr = terminal.shown(sys.stdout), terminal.shown(sys.stderr)
    try:
        home.check_working_folder()
        with ended_in_order():  # asked to end, a command removes what it has half written
            return _run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return early_exit.STATUS
    except _OutputClosed as closed:
        return closed.report()
    except Exception as error:
        explained = as_studio_error(error)
        if explained is None:
            raise
        return _refused(explained, args)


class _OutputClosed(Exception):
    """Standard output can no longer be written: nobody reads it, as behind `| head`, or its disk is full."""

    def report(self) -> int:
        """Print the reason unless it is a closed pipe; returns the exit status."""
        # what is left unsaid must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(self.__cause__, BrokenPipeError):
            return 0
        print(as_studio_error(self.__cause__ or self) or self, file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    code = 0
    try:
        answer = args.run(args)
    except commands.Failed as failed:
        answer, code = failed.answer, 1
    except BrokenPipeError as error:
        try:
            sys.stdout.flush()
        except OSError as closed:  # the command itself was printing
            raise _OutputClosed from closed
        raise StudioError(f"A helper process ended too early: {reason_of(error)}.", "Try again.") from error
    _output(lambda: _print(answer, args))
    return code


def _refused(error: StudioError, args: argparse.Namespace) -> int:
    if not args.json:
        print(plural.of_one(f"{error.message}\n{error.hint}".rstrip()), file=sys.stderr)
        return 2
    try:
        _output(lambda: print(json.dumps({"error": error.as_dict()}, ensure_ascii=False)))
    except _OutputClosed as closed:
        closed.report()
    return 2


def _output(write: Callable[[], None]) -> None:
    """Write to standard output and flush it. Raises _OutputClosed."""
    try:
        write()
        sys.stdout.flush()
    except OSError as error:
        raise _OutputClosed from error


def _print(answer: Any, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif args.show:
        args.show(answer)
    elif answer is not None:
        print(yaml.safe_dump(answer, sort_keys=False, allow_unicode=True).rstrip())


if __name__ == "__main__":
    sys.exit(main())
