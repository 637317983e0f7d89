"""bench pace: how long runs were said to take, before their start and early on, against what they took.

Each case is a whole run as `train` starts it, on the starter model and the bundled sample. Before its start it is
estimated twice: from this device's calibration alone (made first where there is none), and as the page does, from the
finished runs of the cases before it; early on: after a twentieth of its steps. Runs stand in a home of the bench's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from studio import config, credentials, data, model, run
from studio.base import source
from studio.device import devices
from studio.estimate import estimate
from studio.forecast import calibration, duration, record, time_left
from studio.home import PROJECT
from studio.tokens import Encoder
from tests.bench.isolated_home import isolated_home

CASES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (  # method, training settings
    ({"name": "lora"}, {"batch_size": 4, "accumulation": 1, "max_steps": 40}),
    ({"name": "full"}, {"batch_size": 4, "accumulation": 2, "max_steps": 20}),
    ({"name": "adapter"}, {"batch_size": 4, "accumulation": 2, "max_steps": 24}),
    ({"name": "lora", "rank": 64}, {"batch_size": 4, "accumulation": 4, "max_steps": 20, "checkpointing": True}),
    ({"name": "prompt"}, {"batch_size": 4, "accumulation": 1, "max_steps": 40}),
    ({"name": "ia3"}, {"batch_size": 2, "accumulation": 4, "max_steps": 24}),
    ({"name": "lora", "target_modules": "q-v"}, {"batch_size": 8, "accumulation": 2, "max_steps": 20}),
    ({"name": "qlora"}, {"batch_size": 4, "accumulation": 1, "max_steps": 20}),
)
EARLY = 0.05  # share of the steps after which the pace of the run itself must be known


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench pace`."""
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="cases to run, from 1")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the table as JSON, case by case")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a case; seconds, and errors as shares (0.1: said to take a tenth longer than it took)."""
    with isolated_home():
        return _measured(args)


def _measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    here = devices()[0]
    if duration.calibrated(here) is None:
        calibration.calibrate(here)
    rows = []
    for number in args.only or range(1, len(CASES) + 1):
        rows.append({"case": number, **_case(*CASES[number - 1])})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if args.save:
            measured = {
                "device": here.name,
                "cores": here.cores,
                "calibration": duration.calibrated(here)._asdict(),
                **summary(rows),
                "rows": rows,
            }
            args.save.write_text(json.dumps(measured, indent=1))
    return rows


def _case(method: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    order = config.build({"data": {"train": "sample"}, "method": method, "training": training, "name": "bench pace"})
    here, folder = devices()[0], source.fetch(order.model)
    encoder = Encoder.from_order(order.data, folder)
    facts, known = model.facts(folder), data.prepare(order.data, encoder, order.training.seed).statistics
    alone, guess = estimate(facts, order, here, known), record.forecast(facts, order, here, known)
    took, early = _run(order)
    return {
        "method": order.method.name,
        "settings": {key: value for key, value in {**method, **training}.items() if key != "name"},
        "took": round(took, 1),
        "calibration": alone.seconds,
        "calibration_error": _error(alone.seconds, took),
        "page": guess.seconds,
        "page_from": guess.speed_from,
        "page_error": _error(guess.seconds, took),
        "early_error": round(early, 3),
    }


def _error(said: float | None, took: float) -> float | None:
    return None if said is None else round(said / took - 1, 3)


def _run(order: config.RunConfig) -> tuple[float, float]:
    """(seconds the run took, error of what was said to be left after a twentieth of its steps, as a share of what was
    left).
    """
    room = run.create(order)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "studio.supervise", str(room.folder)],
        cwd=PROJECT,
        env=credentials.child_environment(*credentials.HUB),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    ended = time.monotonic()
    diary = room.events()
    began_training = next(
        event["monotonic"] for event in diary if event["kind"] == "phase" and event["name"] == "training"
    )
    timed = [{**event, "time": event["monotonic"] - began_training} for event in diary]
    plan, steps = (
        next(event for event in timed if event["kind"] == "plan"),
        [event for event in timed if event["kind"] == "step"],
    )
    early = [event for event in steps if event["step"] <= max(1, EARLY * plan["steps"])]
    now = early[-1]["time"]
    said = time_left.remaining(
        [event["step"] for event in early],
        [event["time"] for event in early],
        time_left.pauses([event for event in timed if event["time"] <= now]),
        plan,
        [event["tokens"] for event in early],
    )
    return ended - began, said / (ended - began_training - now) - 1


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst of the errors' sizes, a pair for each way of saying."""
    found = {}
    for name in ("calibration", "page", "early"):
        errors = [abs(row[f"{name}_error"]) for row in rows if row[f"{name}_error"] is not None]
        found[name] = {"median": round(statistics.median(errors), 3), "worst": max(errors)} if errors else None
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people, as Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps(summary(rows)))
