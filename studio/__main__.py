"""python -m studio COMMAND: every job of the page, from a terminal."""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import pkgutil
import sys
from typing import Any

import yaml

from studio import commands
from studio.errors import StudioError
from studio.home import HOME_HINT

REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)


def parser() -> argparse.ArgumentParser:
    """The parser with every command of studio/commands/ in it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document on standard output, and nothing else there")
    common.add_argument("--home", metavar="DIR", help="where runs, models and data live (else STUDIO_HOME, else ~/.fine-tuning-studio)")
    top = argparse.ArgumentParser(prog="python -m studio", description="Fine-Tuning Studio: your own language model, from the terminal.")
    parsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"studio.commands.{module.name}").add(parsers, common)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the job failed, 2 the input or the order was refused."""
    given = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(given)
    if args.home:
        os.environ["STUDIO_HOME"] = args.home
    code = 0
    try:
        answer = _carry_out(args)
    except commands.Failed as failed:
        answer, code = failed.answer, 1
    except StudioError as error:
        if args.json:
            print(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
        else:
            print(f"{error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _unread():
            raise  # a pipe of the job's own broke: it did not come to an answer
        return 0
    _print(answer, args)
    return code


def _carry_out(args: argparse.Namespace) -> Any:
    """The command's answer. What the disk refuses becomes a refusal in words."""
    try:
        return args.run(args)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        where = str(error.filename or "The disk")[:200]
        raise StudioError(f"{where}: {error.strerror}.", f"Free some space or change its permissions. {HOME_HINT}", "home") from error


def _unread() -> bool:
    """Whether nobody reads our standard output any more, as behind `| head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left unsaid must not fail again at exit
        return True
    return False


def _print(answer: Any, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(answer, ensure_ascii=False))
    elif getattr(args, "show", None):
        args.show(answer)
    elif answer is not None:
        print(yaml.safe_dump(answer, sort_keys=False, allow_unicode=True).rstrip())


if __name__ == "__main__":
    sys.exit(main())
