"""pairs: preference data out of a file of ratings, or out of the blind votes cast in the chat."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from studio import json_text
from studio.commands import Commands, counted, write_new
from studio.data.ratings import pairs_of
from studio.talk import votes


def add(commands: Commands) -> None:
    about = "preference pairs out of a file of ratings, or out of the chat's blind votes"
    parser = commands.add("pairs", about, make, show)
    parser.add_argument("source", metavar="FILE", help="rated answers; or votes: those of this studio's chat")
    parser.add_argument("out", metavar="OUT", help="where to: a .jsonl file that is not there yet")
    parser.add_argument("--margin", type=float, default=0.0, help="least difference of the two ratings")
    parser.add_argument(
        "--every", action="store_true", help="all pairs of answers to a prompt, not only the best and the worst"
    )


def make(args: Namespace) -> dict[str, Any]:
    """{path, pairs, left_out}; left_out: {why: how many}."""
    out = Path(args.out).expanduser().absolute()
    rows, left_out = votes.pairs() if args.source == "votes" else pairs_of(args.source, args.margin, args.every)
    write_new(out, json_text.lines(rows))
    return {"path": str(out), "pairs": len(rows), "left_out": left_out}


def show(answer: dict[str, Any]) -> None:
    print(f"{answer['path']}: {counted(answer['pairs'], 'pair')}")
    for why, count in answer["left_out"].items():
        print(f"left out: {count} {why}")
