"""python -m tests.faults [--full] [--seed N] [--rounds N] [--only WORD]: every fault, one line a cell, exit 1 when any failed."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from studio import queue
from tests.faults import kill_points, matrix, real, stage

CHECKPOINT = ("model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "manifest.json")
Cell = tuple[str, Callable[[], object]]


def fake_cells(full: bool) -> Iterator[Cell]:
    """All that the trainer without torch can show."""
    for point in kill_points.POINTS if full else kill_points.SHORT:
        yield f"kill at {point}", lambda point=point: kill_points.die_at(point)
    for name in CHECKPOINT:
        for how in ("missing", "cut"):
            yield f"checkpoint: {name} {how}", lambda name=name, how=how: matrix.damaged_checkpoint(name, how)
    yield "events cut at each of the last 200 bytes", every_cut
    yield "full disk", matrix.full_disk
    yield "low disk", matrix.low_disk
    yield "very low disk", matrix.very_low_disk
    for who in ("trainer", "supervisor"):
        seconds = 60 if full else 2
        yield f"{who} stopped for {seconds} s", lambda who=who, seconds=seconds: matrix.standing_still(who, seconds)
    yield "stop of a trainer that stands still", matrix.stopped_while_standing_still
    yield "foreign process on a recorded id", matrix.foreign_process
    yield "device stays taken", matrix.device_stays_taken
    yield "orphan without death signal", matrix.supervisor_without_death_signal
    yield "stray grandchild", matrix.stray_child
    yield "two pages", matrix.two_pages
    for seconds in (-86_400, 7_200):
        yield f"clock steps by {seconds} s", lambda seconds=seconds: matrix.clock_step(seconds)
    yield "four queued, two bad, page killed", matrix.middle_ones_bad
    for count in range(20 if full else 4):
        phase = list(matrix.PHASES)[count % len(matrix.PHASES)]
        how, deaf = count % 7 == 3, count % 5 == 0
        yield f"stop {count + 1} in {phase}{', discard' if how else ''}{', deaf to SIGTERM' if deaf else ''}", \
            lambda phase=phase, how=how, deaf=deaf: matrix.stop_in(phase, how, deaf=deaf)


def every_cut() -> None:
    run = matrix.finished_run()
    with tempfile.TemporaryDirectory() as folder:
        for cut in range(201):
            matrix.cut_diary(cut, run, Path(folder) / "copy")


def random_fake(seed: int) -> str:
    """Random kills of page, supervisor, trainer or the group, with the fake trainer."""
    chance = random.Random(seed)
    done = []
    with stage.surroundings(**stage.fake(pause=0.1)):
        page = stage.page("queue.submit(order())\nwhile True:\n    queue.advance()\n    time.sleep(0.1)\n")
        run = stage.until(stage.the_run, "the run")
        for _ in range(chance.randint(1, 4)):
            if chance.random() < 0.25:
                time.sleep(chance.uniform(0, 1))
                page.kill()
                done.append("page")
            else:
                done.append(real.kill_one(run, chance, 2.0))
            queue.advance()
            if stage.ended(run) and run.state() != "finished":
                queue.resume(run)
        page.kill()
        page.wait()
        stage.bring_home(run)
        stage.check_fake(run)
    return ", ".join(done)


def real_cells(full: bool, seed: int, rounds: int) -> Iterator[Cell]:
    """With the real trainer; the reference is made once, in a home of its own."""
    with tempfile.TemporaryDirectory() as folder, stage.surroundings(STUDIO_HOME=folder):
        wanted = real.reference()
    for point in real.POINTS if full else ("checkpoint.manifest#2",):
        yield f"real: kill at {point}", lambda point=point: real.die_at(point, wanted)
    for number in range(rounds):
        yield f"real: random kills, seed {seed + number}", lambda number=number: real.random_kill(seed + number, wanted)
    yield "real: unreadable model", real.unreadable_model


def output_cost() -> str:
    """1 MB of output with no page open, against none."""
    times = {size: min(matrix.seconds_with_output(size) for _ in range(3)) for size in (0, 1_000_000)}
    more = times[1_000_000] / times[0] - 1
    assert more < 0.02, f"{more:.1%} longer"
    return f"{times[0]:.2f} s without, {times[1_000_000]:.2f} s with 1 MB: {more:+.1%}"


def one(name: str, cell: Callable[[], object]) -> bool:
    """Run a cell in a home of its own and print how it went."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, stage.surroundings(STUDIO_HOME=folder, HF_HUB_OFFLINE="1"):
        try:
            told, good = cell(), True
        except PermissionError as error:
            told, good = f"skipped: this process may not {error}", True
        except Exception:  # noqa: BLE001 - a table of all cells is worth more than the first failure
            told, good = traceback.format_exc(), False
        finally:
            stage.clear()
    print(f"{'ok  ' if good else 'FAIL'} {time.monotonic() - began:6.1f} s  {name}{f'  ({told})' if told and isinstance(told, str) else ''}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every point and cell, 50 random rounds")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--rounds", type=int, help="random rounds with the fake trainer (50 with --full, else 3)")
    parser.add_argument("--real-rounds", type=int, help="random rounds with the real trainer (10 with --full, else 0)")
    parser.add_argument("--only", default="", help="cells with this in their name")
    args = parser.parse_args()
    rounds = args.rounds if args.rounds is not None else 50 if args.full else 3
    real_rounds = args.real_rounds if args.real_rounds is not None else 10 if args.full else 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"seed {args.seed}", flush=True)
    cells = [*fake_cells(args.full), *((f"random kills, seed {args.seed + n}", lambda n=n: random_fake(args.seed + n)) for n in range(rounds))]
    if args.full:
        cells.append(("1 MB of output", output_cost))
    wanted = [cell for cell in cells if args.only in cell[0]]
    results = [one(*cell) for cell in wanted]
    if not args.only or args.only.startswith("real"):
        results += [one(*cell) for cell in real_cells(args.full, args.seed, real_rounds) if args.only in cell[0]]
    print(f"{sum(results)} of {len(results)} cells as they should be, seed {args.seed}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
