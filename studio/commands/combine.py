"""combine: one adapter out of those of several finished runs."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any

from studio import combining, run
from studio.combination import DENSITY, TYPES
from studio.commands import Commands, counted
from studio.commands.runs import SUMMARY_KEYS, submit_and_follow
from studio.runs.combined import losses


def add(commands: Commands) -> None:
    about = "make one adapter out of those of two or more LoRA or QLoRA runs on one base"
    parser = commands.add("combine", about, combine, show)
    parser.add_argument("names", metavar="RUN", nargs="+", help="two or more: a run's id, a unique part of it, or last")
    parser.add_argument(
        "--weights",
        type=_numbers,
        metavar="W,W",
        help="one for each run, such as 0.7,0.3; left out: the same for all, 1 together",
    )
    parser.add_argument(
        "--how", choices=TYPES, default="cat", help=" ".join(f"{name}: {about}" for name, about in TYPES.items())
    )
    parser.add_argument("--density", type=float, help=f"share of numbers that ties and dare_… keep ({DENSITY})")
    parser.add_argument("--name", help="what to call the result")
    parser.add_argument("--detach", action="store_true", help="return at once; it goes on by itself")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no list of numbers; write 0.5,0.5") from None


def combine(args: Namespace) -> dict[str, Any]:
    """{run, state, …, combined: {runs, weights, how, density}, losses: [{run, rows, base, parents, combined}]}."""
    answer = submit_and_follow(
        lambda: combining.start(args.names, args.weights, args.how, args.density, args.name), args.detach
    )
    if args.detach:
        return answer
    return {
        **{key: answer[key] for key in SUMMARY_KEYS if key != "train_loss"},
        "combined": answer["combined"],
        "losses": losses(run.find(answer["run"])),
    }


def show(answer: dict[str, Any]) -> None:
    for key in ("run", "state", "cause", "action", "result"):
        if answer.get(key):
            print(f"{key}: {answer[key]}")
    for row in answer.get("losses", ()):
        print(
            f"held-out loss on {counted(row['rows'], 'row')} of {row['run']}: base {row['base']:.4f}, "
            + "".join(f"{name} {value:.4f}, " for name, value in row["parents"].items())
            + f"combined {row['combined']:.4f}"
        )
