"""align: teach a finished run which answers to prefer. SFT first, then DPO."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from studio import config, origin, preflight, queue
from studio.commands import Commands, add_settings
from studio.commands.export import tell
from studio.commands.runs import SUMMARY_KEYS, submit_and_follow
from studio.run import find
from studio.stages import STAGES


def add(commands: Commands) -> None:
    about = "teach a finished run which answers to prefer: its adapter goes on under dpo"
    parser = commands.add("align", about, align, show)
    parser.add_argument("model", metavar="RUN", help="a finished run: its id, a unique part of it, or last")
    parser.add_argument("data", metavar="DATA", help="pairs of answers, or answers with a verdict")
    names = [name for name, stage in STAGES.items() if not stage.scores]
    parser.add_argument("--stage", choices=names, help="left out: dpo for pairs, kto for verdicts")
    parser.add_argument(
        "--merge", action="store_true", help="work the run's adapter into the base first; a new adapter begins on it"
    )
    add_settings(parser)
    parser.add_argument("--detach", action="store_true", help="return at once; the run goes on by itself")


def align(args: Namespace) -> dict[str, Any]:
    """{run, state, …, preference_before, preference}."""
    run = find(args.model)
    base = origin.merged(run, tell) if args.merge else None
    order = origin.order_after(run, args.data, args.stage, base)
    if args.settings:
        order = config.parse(order.to_yaml(), args.settings)
    preflight.check(order)
    answer = submit_and_follow(lambda: queue.submit(order), args.detach)
    keys = (*SUMMARY_KEYS, "preference_before", "preference")
    return answer if args.detach else {key: answer[key] for key in keys if key in answer}


def show(answer: dict[str, Any]) -> None:
    for key, value in answer.items():
        if value not in (None, "") and not isinstance(value, dict):
            print(f"{key}: {value}")
    before, now = answer.get("preference_before") or {}, answer.get("preference") or {}
    for name, value in now.items():
        print(f"{name}: {before[name]:.3f} -> {value:.3f}" if name in before else f"{name}: {value:.3f}")
