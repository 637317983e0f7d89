"""eval: a run against its base on the same conversations."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from studio import data
from studio.errors import DataError
from studio.export import proof
from studio.home import subfolder
from studio.run import find
from studio.talk import reference

ROWS = 200  # of a file that is named


def add(parsers: Any, common: ArgumentParser) -> None:
    one = parsers.add_parser(
        "eval",
        parents=[common],
        help="held-out loss of a run and of its base, on its own held-out rows or another file",
    )
    one.add_argument("model", metavar="RUN", help="a run's id, a unique part of it, last, or RUN@checkpoint-N")
    one.add_argument("--data", metavar="FILE", help="measure on this file instead of what the run held out")
    one.add_argument(
        "--rows", type=int, help=f"at most so many rows (all that the run held out; {ROWS} of another file)"
    )
    one.add_argument("--samples", type=int, default=0, metavar="N", help="show the answers to N questions of them too")
    one.set_defaults(run=measure, show=show)


def measure(args: Namespace) -> list[dict[str, Any]]:
    """Rows {model, loss, perplexity, tokens, rows, answers?}: the run, then its base."""
    name = reference.canonical_name(args.model)
    order = find(name.partition("@")[0]).config
    found = (
        list(data.read(args.data).conversations)[: args.rows or ROWS]
        if args.data
        else proof.held_out(order)[: args.rows]
    )
    rows = [{key: row[key] for key in ("text", "messages", "tools") if row.get(key)} for row in found]
    if not rows:
        raise DataError("There is nothing to measure on.", "The run held no rows out; give a file with --data.", "data")
    questions = [question for row in rows if (question := proof.prompt_messages(row))][: args.samples]
    with tempfile.TemporaryDirectory(dir=subfolder("cache")) as scratch:
        asked, told = Path(scratch, "order.json"), Path(scratch, "table.json")
        asked.write_text(
            json.dumps(
                {
                    "models": [name, f"base:{name.partition('@')[0]}"],
                    "rows": rows,
                    "questions": questions,
                    "max_length": order.data.max_length,
                    "too_long": order.data.too_long,
                    "train_on": order.data.train_on,
                    "reasoning": order.data.reasoning,
                    "overlap": order.data.overlap,
                }
            )
        )
        proof.run_worker(
            ["studio.worker.measure", str(asked), str(told)],
            lambda done, total: print(f"\r{done}/{total}", end="", file=sys.stderr),
        )
        print(file=sys.stderr)
        table = json.loads(told.read_text())
    return [
        {**row, "questions": [question[-1]["content"] for question in questions]} if questions else row for row in table
    ]


def show(table: list[dict[str, Any]]) -> None:
    for row in table:
        print(
            f"{row['model']:60} loss {row['loss']:.4f}  perplexity {row['perplexity']:.2f}  "
            f"({row['tokens']} tokens of {row['rows']} rows)"
        )
    for place, question in enumerate(table[0].get("questions", [])):
        print(f"\n{question}")
        for row in table:
            print(f"  [{row['model']}] {row['answers'][place]}")
