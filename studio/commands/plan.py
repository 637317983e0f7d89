"""plan: will training help, and are there rows enough? A short look before the real run."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from studio import model, plan, race, run
from studio.base import source
from studio.commands import Commands, Failed
from studio.commands.estimate import statistics
from studio.commands.race import add_order, base_order
from studio.commands.runs import submit_and_follow


def add(commands: Commands) -> None:
    about = "short runs on shares of the rows against examples in the prompt: will training help, how many rows?"
    parser = commands.add("plan", about, look, show)
    parser.add_argument("data", help="a data file, a Hub id, sample, or an order (FILE.yaml)")
    parser.add_argument("--minutes", type=float, default=10, help="how long it may take (10)")
    parser.add_argument("--shots", type=int, default=4, help="examples in the prompt (4)")
    add_order(parser, "change the order")
    parser.add_argument("--detach", action="store_true", help="return at once; it goes on by itself")


def look(args: argparse.Namespace) -> dict[str, Any]:
    """{sentence, verdict, few_shot_loss, curve, rows_needed, …, run}; with --detach {run, state}."""
    base = base_order(args, args.settings, "plan", {})
    folder = source.check(base.model)
    facts = model.facts(folder) if folder else None
    rows, _ = statistics(base)
    order = plan.order(base, args.minutes, facts, rows, args.shots)
    answer = submit_and_follow(lambda: race.start(order, rows), args.detach)
    if args.detach or "eval_loss" not in answer:
        return answer
    found = plan.answer(run.find(answer["run"]))
    if found is None:
        raise Failed({key: answer[key] for key in ("run", "state", "cause", "action")})
    return {**found, "run": answer["run"]}


def show(answer: dict[str, Any]) -> None:
    if "sentence" not in answer:
        print(f"run: {answer['run']}\nstate: {answer['state']}")
        return
    print(answer["sentence"])
    few = answer["few_shot_loss"]
    print(f"  base {answer['base_loss']:.4f}" + (f", with examples {few:.4f}" if few is not None else ""))
    for point in answer["curve"]:
        print(f"  {point['rows']:>7} rows  {point['loss']:.4f}  ({point['low']:.4f} to {point['high']:.4f})")
    print(f"verdict: {answer['verdict']}; the runs: {', '.join(answer['runs'])}", file=sys.stderr)
