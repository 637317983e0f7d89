"""rewards: what an answer can be worth, and a trial of an order's rewards on some of its rows."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from studio import config, reward_trial
from studio.commands import Commands, add_settings, tell_count
from studio.commands.methods import knobs, show_knobs
from studio.registry import attributes
from studio.rewards import REWARDS

SHOWN = 70  # characters of an answer


def add(commands: Commands) -> None:
    about = "the rewards of grpo and their knobs; with an order: try its rewards on rows"
    parser = commands.add("rewards", about, run, show)
    parser.add_argument("order", type=Path, nargs="?", metavar="ORDER", help="an order with stage grpo, a YAML file")
    add_settings(parser)
    parser.add_argument("--rows", type=int, default=reward_trial.ROWS, metavar="N", help="try so many rows (8)")
    parser.add_argument(
        "--answers",
        choices=("data", "base"),
        default="data",
        help="the answers in the data, or some that the base model writes",
    )


def run(args: Namespace) -> dict[str, Any] | list[dict[str, Any]]:
    """The rewards with their knobs; with an order what `reward_trial.trial` returns."""
    if args.order is None:
        return [described(name) for name in REWARDS]
    order = config.load(args.order, args.settings)
    return reward_trial.trial(order, args.answers, max(1, args.rows), tell_count)


def described(name: str) -> dict[str, Any]:
    kind = REWARDS[name]
    return {
        "name": name,
        **attributes(kind, "label", "about", "needs_reference"),
        "source": " ".join((kind.__doc__ or "").split()),
        "knobs": knobs(kind),
    }


def show(answer: dict[str, Any] | list[dict[str, Any]]) -> None:
    if isinstance(answer, list):
        for reward in answer:
            print(f"{reward['label']}  (name: {reward['name']})\n  {reward['about']}")
            show_knobs(reward["knobs"], False)
            print()
        return
    for row in answer["rows"]:
        print(f"row {row['row']}: {_short(row['prompt'])}")
        for one in row["answers"]:
            parts = ", ".join(f"{name} {_number(value)}" for name, value in one["rewards"].items())
            print(f"  {_number(one['reward'])} ({parts})  {_short(one['text'])}")
    means = ", ".join(f"{name} {_number(value)}" for name, value in answer["means"].items())
    print(f"mean {_number(answer['mean'])}: {means}")
    if answer["spread"] is not None:
        print(f"In {answer['spread']:.0%} of the prompts some answers are better than others; the rest teach nothing.")


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN else plain[: SHOWN - 1] + "…"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
