"""python -m tests.bench.startup [--before FILE] [--save FILE]: where the seconds up to the first step go.

A LoRA run of the starter on 8 rows a step, with held-out rows and samples as by default, in a process of its own as a
run starts it. By the clock and in seconds of processor time, told apart by the run's events.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from studio import config, run
from studio.device import default_environment
from studio.home import PROJECT, home
from studio.runs import launch
from tests.bench.isolated_home import isolated_home

SETTINGS = {"max_steps": 1, "batch_size": 8, "accumulation": 1, "save_every": 1_000_000}
PARTS = {  # the event that ends a part
    "fetching model": "Python and libraries",
    "loading model": "data",
    "plan": "model: read, wrap, its loss beside transformers' own",
    "probing": "questions for forgetting",
    "note": "probe: the largest batch there and back",
    "eval": "held-out loss",
    "training": "answers of the base to the sample prompts",
    "step": "first step",
}


def measure() -> dict[str, tuple[float, float]]:
    """Event -> (seconds, processor seconds) since the process was started, where it came first (training: last)."""
    with isolated_home():
        training = SETTINGS | {"threads": os.cpu_count()}
        made = run.create(config.build({"data": {"train": "sample", "max_length": 512}, "training": training}))
        environment = (
            os.environ | default_environment() | launch.environment(made.config) | {"STUDIO_HOME": str(home())}
        )
        child = subprocess.Popen(
            launch.command(made), cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
        began, process, seen, times = time.monotonic(), psutil.Process(child.pid), 0, {}
        while "step" not in times and child.poll() is None:
            events = made.events()
            used = process.cpu_times()
            now = time.monotonic() - began, used.user + used.system
            for event in events[seen:]:
                name = event["name"] if event["kind"] == "phase" else event["kind"]
                if name == "training" or name not in times:
                    times[name] = now
            seen = len(events)
            time.sleep(0.02)
        child.wait()
        run.delete(made)
    return times


def parts(times: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Part -> (seconds, processor seconds)."""
    spent, last = dict.fromkeys(PARTS.values(), (0.0, 0.0)), (0.0, 0.0)
    order = list(PARTS)
    for event in sorted(times, key=lambda name: (times[name], order.index(name) if name in order else 0)):
        if event == "evaluating" and "probing" not in times:
            event, times["probing"] = "probing", times["evaluating"]
        if event in PARTS:
            now = times[event]
            spent[PARTS[event]] = (round(now[0] - last[0], 2), round(now[1] - last[1], 2))
            last = now
    return spent | {"all": (round(last[0], 2), round(last[1], 2))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="what another version printed, for the table")
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    now = parts(measure())
    print(json.dumps(now, indent=1))
    if args.save and args.before:
        before = json.loads(args.before.read_text())
        rows = [
            {"part": part, "before": before[part][0], "now": now[part][0]}
            | {"cpu_before": before[part][1], "cpu_now": now[part][1]}
            for part in now
        ]
        args.save.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
