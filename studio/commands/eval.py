"""eval: a run against its base, on held-out conversations or on a task of lm-eval."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio import benchmark, evaluating, judge, queue
from studio.commands import Commands, counted, print_table, tell
from studio.errors import OrderError, reason_of, wrong_setting
from studio.evaluation import harness
from studio.evaluation.order import ROWS, EvaluationOrder
from studio.export.evaluation import FIGURES
from studio.general.verdict import describe
from studio.run import find, summary
from studio.side_job import read_request
from studio.talk import reference

OF_ANSWERS = ("data", "rows", "questions", "max_new_tokens", "regex", "schema", "samples", "judge", "judge_model")
OF_BENCHMARK = ("limit", "chat", "shots")


def add(commands: Commands) -> None:
    about = "a run against its base: held-out loss, and the scores of their answers, with intervals and a verdict"
    one = commands.add("eval", about, measure, show)
    one.add_argument("model", metavar="RUN", help="a run's id, a unique part of it, last, or RUN@checkpoint-N")
    one.add_argument("--data", metavar="FILE", help="measure on this file instead of what the run held out")
    one.add_argument("--rows", type=int, help="at most so many rows (all that the run held out; 200 of another file)")
    one.add_argument(
        "--questions", type=int, metavar="N", help=f"of them, so many are answered by both models ({ROWS}; 0: none)"
    )
    one.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer; by default from the data's own")
    one.add_argument("--regex", metavar="PATTERN", help="an answer must match it as a whole")
    one.add_argument("--schema", metavar="FILE", help="a JSON Schema that an answer must fulfil")
    one.add_argument("--samples", type=int, default=0, metavar="N", help="show the answers to N questions too")
    one.add_argument("--judge", metavar="URL", help="let a model behind an OpenAI-style endpoint compare the answers")
    one.add_argument("--judge-model", metavar="NAME", help="its name there")
    one.add_argument(
        "--benchmark",
        metavar="TASK",
        help="instead, a task of lm-eval: its name (arc_easy), or a YAML file, which may run Python functions",
    )
    one.add_argument("--limit", type=int, metavar="N", help="of the task, so many questions at most")
    one.add_argument("--chat", action="store_true", help="ask the task in each model's chat template")
    one.add_argument("--shots", type=int, metavar="N", help="examples before each question (as the task has them)")
    one.add_argument("--request", metavar="FILE", help="all of that as JSON, as the order's `evaluation` has it")


def measure(args: Namespace) -> dict[str, Any]:
    """{run, base: {…}, tuned: {…}, difference, verdict, forgetting, table}; with --judge also judge: {win_rate, …}.

    With --benchmark: {run, task, base: {…}, tuned: {…}, table}.
    """
    request = read_request(args.request) if args.request else {}
    if args.benchmark or "benchmark" in request:
        return _benchmark(args, request.get("benchmark"))
    _refuse(args, OF_BENCHMARK, "goes with --benchmark")
    named_judge = {"url": args.judge or "", "model": args.judge_model or ""}
    judge_order = judge.order_of(named_judge) if any(named_judge.values()) else None  # refused before anything is asked
    name = reference.canonical_name(args.model)
    run = find(name.partition("@")[0])
    answer = evaluating.evaluate(run, _order(args, run.config, request), name, args.data, args.rows, tell)
    print(file=sys.stderr)
    for row in answer["table"][: args.samples]:
        print(f"\n{row['prompt']}\n  [base] {row['base']}\n  [tuned] {row['tuned']}", file=sys.stderr)
    queue.advance()  # what was ordered meanwhile
    verdicts = {"judge": judge.judge(run, judge_order, tell, answer["table"])} if judge_order else {}
    return {**answer, **verdicts, "forgetting": summary(run).get("forgetting")}


def _benchmark(args: Namespace, settings: dict[str, Any] | None) -> dict[str, Any]:
    _refuse(args, OF_ANSWERS, "does not go with --benchmark")
    options = {"task": args.benchmark, "limit": args.limit, "chat": args.chat, "shots": args.shots}
    order = harness.order_of(settings or options)
    name = reference.canonical_name(args.model)
    for function in harness.check(order):
        print(f"{order.task} runs the Python function {function}.", file=sys.stderr)
    try:
        return benchmark.measure(find(name.partition("@")[0]), order, name, tell)
    finally:
        print(file=sys.stderr)
        queue.advance()  # what was ordered meanwhile


def _refuse(args: Namespace, options: tuple[str, ...], why: str) -> None:
    """Raise OrderError where one of these options was given."""
    for option in options:
        if getattr(args, option):
            name = "--" + option.replace("_", "-")
            raise OrderError(f"{name} {why}.", "python -m studio eval --help says what can be given.", name)


def _order(args: Namespace, config: Any, request: dict[str, Any]) -> EvaluationOrder:
    """The run's own order of an evaluation, with what is given here."""
    settings = (config.evaluation.model_dump(exclude_unset=True) if config.evaluation else {}) | request
    options = {"rows": args.questions, "max_new_tokens": args.max_new_tokens, "regex": args.regex}
    try:
        if args.schema:
            settings["json_schema"] = json.loads(Path(args.schema).read_text(encoding="utf-8"))
        return EvaluationOrder(**settings | {key: value for key, value in options.items() if value is not None})
    except ValidationError as error:
        raise wrong_setting(error, "evaluation") from error
    except (OSError, ValueError) as error:
        raise OrderError(
            f"The order of the evaluation cannot be read: {reason_of(error)}.", "Give JSON.", "evaluation"
        ) from error


def show(answer: dict[str, Any]) -> None:
    """The verdict and the figures of both sides."""
    if "task" in answer and isinstance(answer["task"], str):
        _show_benchmark(answer)
        return
    if answer["verdict"]:
        print(answer["verdict"]["text"])
    tuned, base = answer["tuned"], answer["base"]
    print(f"{'':24} {'base':>22} {'tuned':>22}")
    for key, (name, *_) in FIGURES.items():
        if tuned.get(key) is not None:
            print(f"{name.removesuffix(', %'):24} {_figure(base, key):>22} {_figure(tuned, key):>22}")
    for line in describe(answer["forgetting"]) if answer.get("forgetting") else ():
        print(line)
    if "judge" in answer:
        print(judge.describe(answer["judge"]))
    seconds = counted(round(answer["seconds"]), "second")
    print(f"{counted(tuned['rows'], 'row')}, {tuned['answered']} answered, in {seconds}.")
    for note in answer["notes"]:
        print(f"- {note}")


def _show_benchmark(answer: dict[str, Any]) -> None:
    print_table([list(benchmark.HEAD), *(benchmark.cells(row) for row in answer["table"])])
    print(f"lm-eval {answer['lm_eval']}, {counted(round(answer['seconds']), 'second')}; ± is its standard error.")
    for note in answer["notes"]:
        print(f"- {note}")


def _figure(side: dict[str, Any], key: str) -> str:
    low, high = side["intervals"].get(key, (None, None))
    spread = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{side[key]:.3f}{spread}"
