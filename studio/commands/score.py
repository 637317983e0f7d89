"""score: what a reward model thinks of the answers in a file."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from studio import scoring
from studio.commands import Commands, mapping_of, tell_count
from studio.run import find


def add(commands: Commands) -> None:
    parser = commands.add("score", "a reward model's score of every answer in a file, of pairs for both", rows, show)
    parser.add_argument("model", metavar="RUN", help="a run of stage reward")
    parser.add_argument("file", metavar="FILE", help="a data file; of each row the last answer is scored")
    parser.add_argument("--format", default="auto", metavar="F", help="auto, or one of `formats`")
    parser.add_argument("--column", action="append", default=[], metavar="PART=COLUMN", help="name a column by hand")


def rows(args: Namespace) -> list[dict[str, Any]]:
    """[{row, score, rejected?, why?}], in the order of the file."""
    return scoring.score(find(args.model), args.file, args.format, mapping_of(args), tell_count)


def show(answer: list[dict[str, Any]]) -> None:
    for row in answer:
        values = [row["score"], *([row["rejected"]] if "rejected" in row else [])]
        print(
            f"row {row['row']:<6} "
            + "  ".join("cannot be scored" if v is None else f"{v:+.4f}" for v in values)
            + (f": {row['why']}" if "why" in row else "")
        )
    share = scoring.accuracy(answer)
    if share is not None:
        print(f"The chosen answer has the higher score in {share:.1%} of the pairs.")
