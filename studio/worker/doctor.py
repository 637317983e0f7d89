"""python -m studio.worker.doctor SPEC: the doctor's parts, each in a forked process that is ended at its limit. SPEC is JSON (studio/doctor.py).

Prints one JSON object a line: {part, state: "going"} when a part begins, {part, state, seconds, figures, why} when it is done. The heavy
libraries are imported once, before the first fork; no device is touched before it, for a child could not use it then.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from studio import process
from studio.errors import StudioError
from studio.worker import examine

START = "fork" if sys.platform == "linux" else "spawn"


class Outcome(NamedTuple):
    """How a part went. state: ok, failed or skipped."""

    state: str
    why: str
    figures: dict[str, Any]


def main(spec: dict[str, Any]) -> None:
    began, told = time.monotonic(), sys.stdout
    sys.stdout = sys.stderr  # what trainers print is not our answer
    unusable = False
    bench = examine.Bench(Path(spec["work"]), bool(spec["short"]))
    for part, limit in spec["parts"]:
        print(json.dumps({"part": part, "state": "going"}), file=told, flush=True)
        start, left = time.monotonic(), spec["limit"] - (time.monotonic() - began)
        if unusable:
            outcome = Outcome("skipped", "The device cannot be used as it is; see its own part.", {})
        else:
            outcome = apart(examine.part, (bench, part), min(limit, left)) if left > 5 else Outcome("skipped", "No time was left for it.", {})
        unusable |= part == "devices" and outcome.state == "failed"
        line = {"part": part, **outcome._asdict(), "seconds": round(time.monotonic() - start, 1)}
        print(json.dumps(line), file=told, flush=True)


def apart(job: Callable[..., tuple[str, dict[str, Any]]], given: tuple[Any, ...], limit: float) -> Outcome:
    """Do a job in a process of its own, which is ended after `limit` seconds with all it started."""
    context = multiprocessing.get_context(START)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_carry_out, args=(theirs, job, given))
    child.start()
    theirs.close()
    try:
        outcome = Outcome(*ours.recv()) if ours.poll(limit) else Outcome("failed", f"It had not ended after {limit:.0f} seconds.", {})
    except EOFError:
        child.join()
        outcome = Outcome("failed", f"Its process ended without a word ({_how(child.exitcode)}).", {})
    finally:
        child.kill()
        child.join()
        process.end(process.family)
    return outcome


def _how(code: int | None) -> str:
    return f"signal {-code}" if code and code < 0 else f"exit code {code}"


def _carry_out(answer: Connection, job: Callable[..., tuple[str, dict[str, Any]]], given: tuple[Any, ...]) -> None:
    """In the child: the job's words and figures, or why there are none."""
    os.setpgid(0, 0)
    try:
        answer.send(("ok", *job(*given)))
    except examine.Skipped as skipped:
        answer.send(("skipped", str(skipped), {}))
    except examine.Wrong as wrong:
        answer.send(("failed", str(wrong), wrong.figures))
    except StudioError as error:
        answer.send(("failed", str(error), {}))
    except BaseException as error:  # noqa: BLE001 - the top of a process: whatever happens is the part's outcome
        traceback.print_exc()
        last = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        answer.send(("failed", last[:400], {"traceback": traceback.format_exc()[-3000:]}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
