"""stages: what can be learnt from what."""

from __future__ import annotations

import argparse
from typing import Any

from studio.commands import Commands
from studio.commands.methods import knobs, show_knobs
from studio.errors import OrderError
from studio.methods import METHODS
from studio.registry import attributes
from studio.stage import METRICS, Stage
from studio.stages import STAGES


def add(commands: Commands) -> None:
    about = "the stages: answers, preference pairs or verdicts; their knobs and metrics"
    listed = commands.add("stages", about, listing, show)
    listed.add_argument("name", nargs="?", metavar="STAGE", help="one stage's page of help")


def listing(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every stage, or one, with its knobs. Raises OrderError for an unknown name."""
    if args.name is not None and args.name not in STAGES:
        raise OrderError(f"There is no stage {args.name!r}.", f"Stages: {', '.join(STAGES)}.", "stage.name")
    return [described(kind) for name, kind in STAGES.items() if args.name in (None, name)]


def described(kind: type[Stage]) -> dict[str, Any]:
    """A stage as plain data: what it learns from what, when to take it, its knobs, metrics, and methods."""
    stage = kind()
    reasons = {name: stage.why_not(method()) for name, method in METHODS.items()}
    return {
        **attributes(stage, "name", "label", "about", "advice", "examples", "sequences", "rate_scale"),
        "source": " ".join((kind.__doc__ or "").split()),
        "reference": stage.uses_reference,
        "metrics": {name: METRICS[name] for name in ("loss", *kind.metrics)},
        "methods": [name for name, reason in reasons.items() if not reason],
        "not_with": {name: reason for name, reason in reasons.items() if reason},
        "knobs": knobs(kind),
    }


def show(answer: list[dict[str, Any]]) -> None:
    for stage in answer:
        print(f"{stage['label']}  (stage: {stage['name']})\n  {stage['about']}\n  {stage['advice']}")
        rate = "the method's own" if stage["rate_scale"] == 1 else f"{stage['rate_scale']:g} × the method's own"
        print(f"  learns from {stage['examples']}; learning rate {rate}")
        if len(answer) == 1:
            print(f"  {stage['source']}")
            for name, meaning in stage["metrics"].items():
                print(f"    {name:16} {meaning}")
        for name, reason in stage["not_with"].items():
            print(f"  not with {name}: {reason}")
        show_knobs(stage["knobs"], len(answer) == 1)
        print()
