"""Apart: a job done in a process of its own that is ended at its limit, so that its crash, its hanging or its poisoned card stay its own.

Processes are forked: the heavy libraries are imported once. A card that was used before the fork could not be used behind it, and threads of
a computation would be missing there; so whoever calls `apart` has computed nothing itself.
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
    """How a part went. state: ok, failed or skipped."""

    state: str
    why: str
    figures: dict[str, Any]


class Skipped(Exception):
    """A part that cannot be done here, and why."""


class Wrong(Exception):
    """A part whose outcome is not what it should be."""

    def __init__(self, why: str, figures: dict[str, Any]):
        super().__init__(why)
        self.figures = figures


def apart(job: Job, given: tuple[Any, ...], limit: float, start: str = START) -> Outcome:
    """Do a job in a process of its own, which is ended after `limit` seconds with all it started. start: "fork", or "spawn" for an interpreter of its own."""
    context = multiprocessing.get_context(start)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_carry_out, args=(theirs, job, given))
    child.start()
    theirs.close()
    try:
        outcome = (
            Outcome(*ours.recv())
            if ours.poll(limit)
            else Outcome("failed", f"It had not ended after {limit:.0f} seconds.", {})
        )
    except EOFError:
        child.join()
        outcome = Outcome("failed", f"Its process ended without a word ({_how(child.exitcode)}).", {})
    finally:
        started = process.descendants_of(child.pid or 0)
        child.kill()
        child.join()
        process.kill_all(lambda: [one for one in started if process.is_alive(one)])
    return outcome


def _how(code: int | None) -> str:
    return f"signal {-code}" if code and code < 0 else f"exit code {code}"


def _carry_out(answer: Connection, job: Job, given: tuple[Any, ...]) -> None:
    process.die_with_parent(os.getppid())
    sys.stdout = sys.stderr  # what trainers print is not our answer, in an interpreter of its own either
    answer.send(tuple(_outcome(job, given)))


def alone(job: Job, given: tuple[Any, ...], limit: float) -> Outcome:
    """As apart, for a part of a part; where processes are not forked, here: starting so many anew would take too long."""
    return apart(job, given, limit) if START == "fork" else _outcome(job, given)


def _outcome(job: Job, given: tuple[Any, ...]) -> Outcome:
    """The job's words and figures, or why there are none."""
    try:
        return Outcome("ok", *job(*given))
    except Skipped as skipped:
        return Outcome("skipped", str(skipped), {})
    except Wrong as wrong:
        return Outcome("failed", str(wrong), wrong.figures)
    except StudioError as error:
        return Outcome("failed", str(error), {})
    except BaseException as error:  # noqa: BLE001 - the top of a process: whatever happens is the part's outcome
        traceback.print_exc()
        last = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        return Outcome("failed", last[:400], {"traceback": traceback.format_exc()[-3000:]})
