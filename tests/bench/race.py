"""Does a race find the best of six settings, in how much of the time? python -m tests.bench.race DATA [--set K=V]…

Runs six settings in full, then races them, on the same computer; prints both tables, the share of the time, and whether
the winners are the same.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import yaml

from studio import config, queue, race, run
from studio.commands.runs import follow

RATES = ("3e-6", "3e-5", "2e-4", "1e-3", "5e-3", "3e-2")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    base = config.parse(yaml.safe_dump({"data": {"train": args.data, "eval": 0.1}}), args.settings)
    order = race.order(base, [(f"training.learning_rate={rate}",) for rate in RATES])
    began = time.monotonic()
    raced = race.start(order)
    follow(raced)
    race_seconds = time.monotonic() - began
    table = race.table(raced)
    began, full = time.monotonic(), []
    for one in race.orders(order):
        alone = queue.submit(one)
        follow(alone)
        full.append({"label": one.name, "rate": one.learning_rate, "loss": run.summary(alone)["eval_loss"]})
    full_seconds = time.monotonic() - began
    best = min(full, key=lambda row: row["loss"])
    answer: dict[str, Any] = {
        "race": [{key: row[key] for key in ("place", "label", "state", "step", "eval_loss")} for row in table],
        "full": full,
        "race_seconds": round(race_seconds, 1),
        "full_seconds": round(full_seconds, 1),
        "share": round(race_seconds / full_seconds, 3),
        "same": table[0]["learning_rate"] == best["rate"],
    }
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
