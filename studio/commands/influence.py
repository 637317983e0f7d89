"""influence: which training rows pushed an adapter towards an answer, and which against what was held out."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from studio import influence, queue, without_rows
from studio.commands import RUN, Commands, tell
from studio.run import find
from studio.side_job import read_request


def add(commands: Commands) -> None:
    about = "the training rows that taught an adapter an answer, by gradients, and those that hurt the held-out loss"
    parser = commands.add("influence", about, measure, show)
    parser.add_argument("model", metavar="RUN", help=RUN)
    parser.add_argument("--prompt", metavar="TEXT", help="the question; left out: only what hurts the held-out loss")
    parser.add_argument("--answer", metavar="TEXT", help="the answer; left out: the run's own")
    parser.add_argument("--rows", type=int, default=influence.MOST_ROWS, help="look at so many training rows at most")
    parser.add_argument("--no-held-out", action="store_true", help="without the rows that hurt the held-out loss")
    parser.add_argument("--request", metavar="FILE", help="all of that as JSON, as the page has it")
    parser.add_argument("--drop", metavar="ROWS", help="train again without these rows of the data: 3,17,20")


def measure(args: Namespace) -> dict[str, Any]:
    """{rows: [{row, score, source, text?}…], against, harmful, answer, …}, most helpful first; --drop: {run, state}."""
    run = find(args.model)
    if args.drop:
        rows = [{"row": int(number)} for number in args.drop.replace(" ", ",").split(",") if number.isdigit()]
        new = without_rows.again(run, rows)
        return {"run": new.id, "state": new.state()}
    request = {"prompt": args.prompt, "answer": args.answer}
    if args.request:
        request = read_request(args.request)
    try:
        return influence.influences(
            run, request["prompt"], request["answer"], not args.no_held_out, tell, max(1, args.rows)
        )
    finally:
        print(file=sys.stderr)
        queue.advance()  # what was ordered meanwhile


def show(answer: dict[str, Any]) -> None:
    """The lists, each row in one line."""
    if "rows" not in answer:
        print(f"{answer['run']}: {answer['state']}")
        return
    if answer["answer"] is not None:
        print(f"Answer: {answer['answer']}")
    for title, rows in (
        ("Pushed towards this answer", answer["rows"][: influence.LISTED]),
        ("Pulled against it", answer["against"]),
        ("Hurt the held-out loss", answer["harmful"]),
    ):
        if rows:
            print(f"\n{title}")
        for row in rows:
            print(f"{row['score']:+.3f}  row {row['row']:<6} {' '.join(row['text'].split())[:90]}")
