"""bench memory: the estimate against what the trainer really took, or against what others measured (--published).

Each case is one real training process on the starter model, two optimizer steps long, whose highest resident memory it
tells at its end (studio/memory_peak.py). Rows are cut at the limit, so that every batch is as long as the order says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from studio import cards, config, credentials, device, estimate, model, run
from studio.home import PROJECT, home
from studio.memory import tables
from studio.memory.studio_loop import RowStatistics
from studio.runs import launch
from tests.bench import published
from tests.bench.isolated_home import isolated_home

MIB = 2**20
CASES: tuple[tuple[dict[str, Any], int, int, dict[str, Any]], ...] = (  # method, length, batch, training settings
    ({"name": "lora"}, 256, 4, {}),
    ({"name": "lora"}, 512, 2, {}),
    ({"name": "lora"}, 1024, 2, {"checkpointing": True}),
    ({"name": "lora", "target_modules": "q-v", "dropout": 0.0}, 512, 2, {}),
    ({"name": "lora", "rank": 64}, 256, 4, {}),
    ({"name": "full"}, 256, 4, {}),
    ({"name": "full"}, 512, 2, {"checkpointing": True}),
    ({"name": "qlora"}, 512, 2, {}),
    ({"name": "adapter"}, 512, 2, {}),
    ({"name": "prefix"}, 256, 8, {}),
    ({"name": "prompt"}, 512, 2, {}),
    ({"name": "ia3"}, 1024, 1, {}),
    ({"name": "p_tuning"}, 256, 4, {"checkpointing": True}),
    ({"name": "lora", "target_modules": "attention", "rank": 8}, 384, 4, {"packing": False}),
    ({"name": "qlora"}, 256, 4, {"checkpointing": True}),
    ({"name": "lora", "rank": 128}, 768, 1, {}),
    ({"name": "full"}, 1024, 1, {}),
    ({"name": "prompt"}, 256, 8, {}),
    ({"name": "adapter", "size": 256}, 384, 2, {"checkpointing": True}),
    ({"name": "ia3"}, 512, 4, {"packing": False}),
    ({"name": "lora", "rank": 32}, 384, 4, {}),
    ({"name": "full"}, 640, 2, {}),
    ({"name": "adapter", "size": 128}, 256, 4, {}),
    ({"name": "prefix"}, 512, 2, {}),
)
STAGE_CASES: tuple[tuple[str, dict[str, Any], int, int, dict[str, Any]], ...] = (  # stage first; length of an answer
    ("dpo", {"name": "lora"}, 256, 2, {}),
    ("dpo", {"name": "full"}, 256, 2, {}),
    ("dpo", {"name": "lora"}, 512, 2, {"checkpointing": True}),
    ("kto", {"name": "lora"}, 512, 2, {}),
    ("kto", {"name": "adapter"}, 256, 4, {"packing": False}),
    ("orpo", {"name": "lora", "rank": 64}, 384, 2, {}),
    ("reward", {"name": "lora"}, 256, 2, {}),
    ("reward", {"name": "full"}, 384, 2, {}),
)
# Cases 21 to 24 were measured after the constants of a CPU's heap had been read off the others.


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench memory`."""
    parser.add_argument(
        "--published", nargs="?", const="", metavar="CSV", help="compare with published measurements instead"
    )
    parser.add_argument("--speed", action="store_true", help="how long an estimate takes instead")
    parser.add_argument("--stages", action="store_true", help="the cases of stages that compare answers instead")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="cases to run, from 1")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The table as a list of rows; sizes in GiB, errors as shares (0.02: estimated 2 % too high)."""
    if args.published is not None:
        return published.rows(Path(args.published) if args.published else published.TABLE)
    if args.speed:
        return [
            _timed(name)
            for name in ("HuggingFaceTB/SmolLM2-135M", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-2-70b-hf")
        ]
    rows = []
    cases = STAGE_CASES if args.stages else tuple(("sft", *case) for case in CASES)
    for number in args.only or range(1, len(cases) + 1):
        rows.append(_case(number, *cases[number - 1]))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)  # a table takes its minutes
    return rows


def _timed(name: str) -> dict[str, Any]:
    """Milliseconds of processor time, the median of 15: one estimate, and one with advice and limits."""
    facts, card = tables.facts_of(name), cards.device("NVIDIA A100 80GB")
    order = config.build({"data": {"train": "rows.json", "max_length": 2048}})

    def once(advised: bool) -> float:
        began = time.process_time()
        estimate.estimate(facts, order, card, advised=advised)
        return (time.process_time() - began) * 1000

    once(False)
    return {
        "model": name,
        "milliseconds": round(statistics.median(once(False) for _ in range(15)), 1),
        "with advice": round(once(True), 1),
    }


def _rows(stage: str, count: int) -> list[dict[str, Any]]:
    """Rows that a stage learns from, each answer longer than any limit here."""
    counted = [" ".join(map(str, range(n, n + 2000))) for n in range(2 * count)]
    if stage == "sft":
        return [{"instruction": "Count.", "input": "", "output": text} for text in counted[:count]]
    if stage == "kto":
        return [{"prompt": "Count.", "completion": text, "label": n % 2 == 0} for n, text in enumerate(counted[:count])]
    return [{"prompt": "Count.", "chosen": a, "rejected": b} for a, b in zip(counted[::2], counted[1::2], strict=True)]


def _case(
    number: int, stage: str, method: dict[str, Any], length: int, batch: int, training: dict[str, Any]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        rows, count = Path(folder, "rows.json"), 2 * batch
        rows.write_text(json.dumps(_rows(stage, count)))
        order = config.build(
            {
                "data": {"train": str(rows), "eval": 0, "max_length": length},
                **({} if stage == "sft" else {"stage": stage}),
                "method": method,
                "training": {"batch_size": batch, "accumulation": 1, "max_steps": 2, "probe": False, **training},
            }
        )
        here = device.cpu()
        facts = model.facts_of(order.model)
        width = length * order.stage.sequences
        known = RowStatistics(count, count * width, int(count * width * 0.97), width)
        guess = estimate.estimate(facts, order, here, known)
        with isolated_home():
            measured = peak(order)
    settings = {key: value for key, value in {**method, **training}.items() if key != "name"}
    return {
        "case": number,
        **({} if stage == "sft" else {"stage": stage}),
        "method": order.method.name,
        "settings": settings,
        "length": length,
        "batch": batch,
        "measured": round(measured / 2**30, 3),
        "estimate": round(guess.total / 2**30, 3),
        "error": round(guess.total / measured - 1, 4),
    }


def peak(order: config.RunConfig) -> int:
    """Highest resident bytes of a training process for an order. Raises RuntimeError with the end of its output when it
    fails.
    """
    made = run.create(order)
    output = made.folder / "bench.txt"
    with open(output, "wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "studio.worker.train", str(made.folder)],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=credentials.child_environment(*credentials.HUB)
            | launch.environment(order, device.cpu())
            | {"STUDIO_HOME": str(home()), device.DEVICE_VARIABLE: "cpu"},
        )
    if child.wait() != 0:
        raise RuntimeError(output.read_text(errors="replace")[-2000:])
    measured = run.summary(made)["peak_memory"]
    run.delete(made)
    return int(measured)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, 95th percentile and worst of the errors' sizes."""
    errors = sorted(abs(row["error"]) for row in rows if "error" in row)
    if not errors:
        return {}
    return {
        "cases": len(errors),
        "median": statistics.median(errors),
        "p95": errors[min(len(errors) - 1, int(0.95 * len(errors)))],
        "worst": errors[-1],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people, as Markdown."""
    keys = [key for key in rows[0] if key != "why"]
    print("| " + " | ".join(keys) + " |\n|" + "---|" * len(keys))
    for row in rows:
        cells = {"estimate": row.get("why", ""), **row} | ({"error": f"{row['error']:+.2%}"} if "error" in row else {})
        print("| " + " | ".join(str(cells.get(key, "")) for key in keys) + " |")
    if summary(rows):
        print(json.dumps(summary(rows)))
