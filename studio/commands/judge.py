"""judge: a model behind an OpenAI-style endpoint compares a run's answers with its base's."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from studio import evaluating, judge
from studio.commands import RUN, Commands, given, tell
from studio.errors import OrderError
from studio.run import find
from studio.runs import evaluations
from studio.side_job import read_request


def add(commands: Commands) -> None:
    about = "another model says which answers are better, base or tuned, in both orders; win rate with its interval"
    parser = commands.add("judge", about, measure, show)
    parser.add_argument("model", metavar="RUN", help=RUN)
    parser.add_argument("--judge", metavar="URL", help="an OpenAI-style endpoint, as http://127.0.0.1:8000/v1")
    parser.add_argument("--judge-model", metavar="NAME", help="the model's name there")
    parser.add_argument("--rows", type=int, help="judge so many questions at most (100)")
    parser.add_argument("--prompt", metavar="FILE", help="another prompt, with {question}, {answer_a} and {answer_b}")
    parser.add_argument("--per-minute", type=int, metavar="N", help="requests a minute at most (120)")
    parser.add_argument("--minutes", type=float, metavar="N", help="end after so many minutes (30)")
    parser.add_argument("--show-prompt", action="store_true", help="print the prompt, and judge nothing")
    parser.add_argument("--request", metavar="FILE", help="all of that as JSON, as the page has it")


def measure(args: Namespace) -> dict[str, Any]:
    """{win_rate, low, high, wins, ties, losses, flipped, unreadable, rows, …}; with --show-prompt: {prompt}."""
    if args.show_prompt:
        return {"prompt": judge.PROMPT}
    run, order = find(args.model), judge.order_of(_settings(args))
    known = evaluations.results(run).get("table")
    table = None if known else evaluating.evaluate(run, progress=tell)["table"]
    answer = judge.judge(run, order, tell, table)
    print(file=sys.stderr)
    return answer


def _settings(args: Namespace) -> dict[str, Any]:
    if args.request:
        return read_request(args.request)
    if not args.judge or not args.judge_model:
        raise OrderError("A judge is not named.", "Give --judge URL and --judge-model NAME.", "judge.url")
    return given(
        args.prompt,
        url=args.judge,
        model=args.judge_model,
        rows=args.rows,
        per_minute=args.per_minute,
        minutes=args.minutes,
    )


def show(answer: dict[str, Any]) -> None:
    """The win rate and the counts."""
    if "win_rate" not in answer:
        print(answer["prompt"])
        return
    print(judge.describe(answer))
    print(f"Order decided {answer['flipped']}; {answer['unreadable']} had an unreadable verdict: both count as ties.")
    if answer["why"]:
        print(answer["why"])
