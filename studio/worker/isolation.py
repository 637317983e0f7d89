"""Run a job in a process of its own with a time limit, so that a crash, a hang or a broken CUDA context stays its own.

Processes are forked, so that the heavy libraries are imported once. A caller must not have computed anything: a device
used before a fork cannot be used after it, and the threads of a computation are missing there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from studio import process
from studio.errors import StudioError

START = "fork" if sys.platform == "linux" else "spawn"
Job = Callable[..., tuple[str, dict[str, Any]]]


class Outcome(NamedTuple):
    """The outcome of a part. state: ok, failed or skipped."""

    state: str
    why: str
    figures: dict[str, Any]


class PartSkipped(Exception):
    """Raised by a part that cannot be done here, with the reason."""


class PartFailed(Exception):
    """Raised by a part whose result is wrong, with the reason and its figures."""

    def __init__(self, why: str, figures: dict[str, Any]):
        super().__init__(why)
        self.figures = figures


def run_isolated(job: Job, arguments: tuple[Any, ...], limit: float, start: str = START) -> Outcome:
    """Run a job in a new process, ended with all it started after `limit` seconds. start: "fork" or "spawn"."""
    context = multiprocessing.get_context(start)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_outcome, args=(sender, job, arguments))
    child.start()
    sender.close()
    try:
        outcome = (
            Outcome(*receiver.recv())
            if receiver.poll(limit)
            else Outcome("failed", f"It had not ended after {limit:.0f} seconds.", {})
        )
    except EOFError:
        child.join()
        code = child.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        outcome = Outcome("failed", f"Its process ended without a word ({how}).", {})
    finally:
        started = process.descendants_of(child.pid or 0)
        child.kill()
        child.join()
        process.kill_all(lambda: [pid for pid in started if process.is_alive(pid)])
    return outcome


def _send_outcome(connection: Connection, job: Job, arguments: tuple[Any, ...]) -> None:
    process.die_with_parent(os.getppid())
    sys.stdout = sys.stderr  # for what trainers print, in a spawned interpreter too
    connection.send(tuple(_outcome(job, arguments)))


def run_isolated_if_cheap(job: Job, arguments: tuple[Any, ...], limit: float) -> Outcome:
    """Run a job isolated where processes are forked, else in this process: new interpreters would take too long."""
    return run_isolated(job, arguments, limit) if START == "fork" else _outcome(job, arguments)


def _outcome(job: Job, arguments: tuple[Any, ...]) -> Outcome:
    """Run a job and turn what it returns or raises into an outcome."""
    try:
        return Outcome("ok", *job(*arguments))
    except PartSkipped as skipped:
        return Outcome("skipped", str(skipped), {})
    except PartFailed as wrong:
        return Outcome("failed", str(wrong), wrong.figures)
    except StudioError as error:
        return Outcome("failed", str(error), {})
    except BaseException as error:  # noqa: BLE001 - the top of a process: whatever happens is the part's outcome
        traceback.print_exc()
        last = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        return Outcome("failed", last[:400], {"traceback": traceback.format_exc()[-3000:]})
