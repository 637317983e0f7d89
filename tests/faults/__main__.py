"""python -m tests.faults [--full] [--seed N] [--rounds N] [--real-rounds N] [--only PATTERN]: every fault, and a
table of what was said of the run.

--full: every point and cell, and each must be said rightly within 10 seconds. Exit 1 when any cell failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.faults import disks, files, kill_points, output, pages, processes, real, stage, stops

SOON = 10.0  # seconds within which state, cause and action must be right, in the long form
Cell = tuple[str, Callable[[], object]]


class Row(NamedTuple):
    """A cell and how it went: good, or skipped with the reason; what was said of the run, after how many seconds."""

    name: str
    good: bool
    seen: stage.Seen | None
    told: str
    seconds: float


def kills(full: bool, seed: int, rounds: int) -> Iterator[Cell]:
    for point in kill_points.POINTS if full else kill_points.SHORT:
        yield f"kill at {point}", lambda point=point: kill_points.die_at(point)
    for number in range(rounds):
        yield f"random kills, seed {seed + number}", lambda number=number: random_fake(seed + number)


def matrix(full: bool) -> Iterator[Cell]:
    """Faults other than kills."""
    yield "disk full in the middle", disks.full_disk
    yield "disk full at the result", disks.full_at_the_result
    yield "disk low", disks.low_disk
    yield "disk very low", disks.very_low_disk
    for number, name in enumerate(disks.ODD):
        yield f"home {number + 1} of {len(disks.ODD)} odd ones", lambda name=name: disks.odd_home(name)
    yield "home read-only", disks.read_only_home
    for name in files.CHECKPOINT:
        for how in ("missing", "cut"):
            yield f"checkpoint: {name} {how}", lambda name=name, how=how: files.damaged_checkpoint(name, how)
    yield "diary cut at each of the last 200 bytes", files.every_cut
    yield "diary deleted", files.diary_deleted
    yield "diary deleted while running", files.diary_deleted_while_running
    for how in ("deleted", "edited"):
        yield f"order {how} while running", lambda how=how: files.order_while_running(how)
    yield "folder moved while running", files.folder_moved
    for who in ("trainer", "supervisor"):
        seconds = 60 if full else 2
        yield (
            f"{who} stands still for {seconds} s",
            lambda who=who, seconds=seconds: processes.standing_still(who, seconds),
        )
    yield "foreign process on a recorded id", processes.foreign_process
    yield "reboot", processes.reboot
    yield "device stays taken", processes.device_stays_taken
    yield "orphan without death signal", processes.supervisor_without_death_signal
    yield "stray grandchild", processes.stray_child
    yield "two pages", processes.two_pages
    yield "four supervisors on one run", processes.two_supervisors
    for seconds in (-86_400, -3600, 7_200):
        yield f"clock steps by {seconds} s", lambda seconds=seconds: processes.clock_step(seconds)
    yield "clock steps back, then extended", processes.extended_after_a_step_back
    yield "four queued, two bad, page killed", processes.middle_ones_bad
    yield "died in the dark, with a webhook", processes.died_in_the_dark
    yield "terminal and page", pages.both_ways
    yield "three queued on the page, which is killed", pages.page_killed
    yield "200 runs", processes.many_runs
    yield "a line of 50 MB", output.endless_line


def stopped(full: bool) -> Iterator[Cell]:
    for count in range(20 if full else 4):
        phase = list(stops.PHASES)[count % len(stops.PHASES)]
        how, deaf = count % 7 == 3, count % 5 == 0
        yield (
            f"stop {count + 1} in {phase}{', discard' if how else ''}{', deaf to SIGTERM' if deaf else ''}",
            lambda phase=phase, how=how, deaf=deaf: stops.stop_in(phase, how, deaf=deaf),
        )
    yield "stop of a trainer that stands still", stops.stopped_while_standing_still
    yield "stop, killed at its result", stops.result_killed_while_stopping
    yield "Ctrl-C", stops.ctrl_c
    yield "Ctrl-C twice", stops.ctrl_c_twice
    for after in (0.6, 0.8, 1.0, 1.2, 1.4, 1.8):
        yield f"Ctrl-C after {after} s", lambda after=after: stops.ctrl_c_early(after)
    yield "terminal closed", stops.hang_up


def random_fake(seed: int) -> str:
    """Random kills of page, supervisor, trainer or the group, with the fake trainer."""
    with stage.surroundings(**stage.fake(pause=0.1)):
        done, run = real.struck(stage.page("queue.submit(order())\n" + real.MOVES_ON), random.Random(seed), 4)
        stage.bring_home(run)
        stage.check_fake(run)
    return done


def with_torch(full: bool, seed: int, rounds: int) -> Iterator[Cell]:
    """With the real trainer; the reference is made when the first of them needs it, in a home of its own."""
    for point in real.POINTS if full else ("checkpoint.manifest#2",):
        yield f"real: kill at {point}", lambda point=point: real.die_at(point)
    for number in range(rounds):
        yield f"real: random kills, seed {seed + number}", lambda number=number: real.random_kill(seed + number)
    yield "real: unreadable model", real.unreadable_model
    for probe in (True, False):
        yield (
            f"real: out of memory, {'with' if probe else 'without'} the probe",
            lambda probe=probe: real.out_of_memory(probe),
        )
    yield "real: out of address space", lambda: real.out_of_memory(False, "space", 64)


def one(name: str, cell: Callable[[], object]) -> Row:
    """Run a cell in a home of its own and print how it went."""
    began = time.monotonic()
    stage.seen.clear()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        stage.surroundings(STUDIO_HOME=folder, HF_HUB_OFFLINE="1"),
    ):
        try:
            told, good = cell(), True
        except PermissionError as error:
            told, good = f"skipped: this process may not {error}", True
        except Exception:  # noqa: BLE001 - a table of all cells is worth more than the first failure
            told, good = traceback.format_exc(), False
        finally:
            stage.clear()
    slowest = max(stage.seen, key=lambda seen: (seen.state not in ("running", "finished"), seen.seconds), default=None)
    row = Row(name, good, slowest, told if isinstance(told, str) else "", time.monotonic() - began)
    print(
        f"{'ok  ' if good else 'FAIL'} {row.seconds:6.1f} s  {name}{f'  ({row.told})' if row.told else ''}", flush=True
    )
    return row


def table(rows: list[Row]) -> str:
    """What was said of the run in each cell, and after how many seconds; of several sayings the slowest."""
    wide = max(80, shutil.get_terminal_size((200, 24)).columns)
    lines = [("cell", "state", "cause", "action", "said after")]
    for row in rows:
        seen = row.seen
        said = (
            (seen.state, seen.cause, seen.action, f"{seen.seconds:.1f} s")
            if seen
            else ("", row.told[:60].replace("\n", " "), "", "")
        )
        lines.append((row.name + ("" if row.good else "  FAILED"), *said))
    widths = [max(len(line[place]) for line in lines) for place in range(5)]
    text = (wide - widths[0] - widths[1] - widths[4] - 8) // 2
    widths[2:4] = [min(widths[2], text), min(widths[3], text)]
    return "\n".join(
        "  ".join(word[:width].ljust(width) for word, width in zip(line, widths)).rstrip() for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="every point and cell, 50 random rounds with each trainer")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--rounds", type=int, help="random rounds with the fake trainer (50 with --full, else 3)")
    parser.add_argument("--real-rounds", type=int, help="random rounds with the real trainer (50 with --full, else 0)")
    parser.add_argument(
        "--only", metavar="PATTERN", default="", help="cells in whose name this regular expression is found"
    )
    parser.add_argument("--list", action="store_true", help="only name the cells")
    args = parser.parse_args()
    rounds = args.rounds if args.rounds is not None else 50 if args.full else 3
    real_rounds = args.real_rounds if args.real_rounds is not None else 50 if args.full else 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    stage.within[0] = SOON if args.full else stage.WAIT
    cells = [
        *kills(args.full, args.seed, rounds),
        *matrix(args.full),
        *stopped(args.full),
        ("1 MB of output", output.cost),
        *with_torch(args.full, args.seed, real_rounds),
    ]
    cells = [cell for cell in cells if re.search(args.only, cell[0])]
    if args.list:
        print("\n".join(name for name, _ in cells))
        return 0
    print(f"seed {args.seed}", flush=True)
    rows = [one(*cell) for cell in cells]
    good = sum(row.good for row in rows)
    print(f"\n{table(rows)}\n\n{good} of {len(rows)} cells as they should be, seed {args.seed}")
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
