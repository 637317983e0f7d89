"""Benchmarks: a task of lm-eval, asked of a run's base and of the run itself; the figures of both beside each other.

A worker lets lm-eval ask the loaded models (worker/benchmark.py), so that adapters of every method, new tokens and
bases in 4 bits are measured as they were trained. The last figures of every task stand in the run's folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from studio import credentials, side_process
from studio.evaluation import harness, statistics
from studio.evaluation.harness import BenchmarkOrder
from studio.evaluation.results import SIDES
from studio.run import Run
from studio.side_job import Progress, SideJob
from studio.talk import reference

KIND = "benchmarks"
WORKER = "studio.worker.benchmark"
ABOUT = "Tasks of lm-eval. ± is its standard error; a difference has its 95 % interval, where questions can be paired."
HEAD = ("task", "metric", "base", "tuned", "difference")
SAME_MEAN = 1e-9  # by which lm-eval's figure may differ from the mean of its questions
ORDERED = ("task", "limit", "chat", "shots")  # what tells one measurement from another


def job(run: Run, progress: Progress = lambda _: None) -> SideJob:
    return SideJob(run, KIND, "The benchmark", progress)


def results(run: Run) -> list[dict[str, Any]]:
    """The last figures of each task as it was ordered, the newest first; [] without any."""
    return job(run).results().get("results", [])


def start(run: Run, order: BenchmarkOrder) -> list[str]:
    """Begin a benchmark as a process of its own. Returns the Python functions that it runs. Raises StudioError."""
    functions = harness.check(order)
    reference.resolve(run.id)
    side_process.begin(job(run), "eval", {"benchmark": order.model_dump()})
    return functions


def measure(
    run: Run, order: BenchmarkOrder, name: str | None = None, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """{task, base, tuned, table, …}, kept in the run's folder. base, tuned: as lm-eval's `results` has them, by task.

    name: RUN@checkpoint-N, measured instead of the result and not kept. Raises StudioError.
    """
    functions, task, began = harness.check(order), job(run, progress), time.time()
    model = name or run.id
    reference.resolve(model)
    settings = order.model_dump() | {"task": str(order.file or order.task), "is_file": order.file is not None}
    # rows of a gated data set; never for a file that brings programs of its own
    secrets = credentials.HUB if harness.is_remote(order) and not functions else ()
    with task.working():
        printed = task.carry_out(WORKER, {"base": f"base:{run.id}", "tuned": model, **settings}, secrets)
        sides = {event["side"]: event for event in printed if event["kind"] == "side"}
        answer = {
            "run": run.id,
            "model": model,
            "at": round(began, 3),
            "seconds": round(time.time() - began, 1),
            **order.model_dump(),
            "name": order.file.name if order.file else order.task,
            "functions": functions,
            "lm_eval": sides["tuned"]["version"],
            "notes": list(dict.fromkeys(event["text"] for event in printed if event["kind"] == "note")),
            **{side: sides[side]["results"] for side in SIDES},
            "table": table(sides["base"]["rows"], sides["tuned"]["rows"]),
        }
        if model == run.id:
            others = [result for result in results(run) if any(result[key] != answer[key] for key in ORDERED)]
            task.keep({"at": answer["at"], "state": "done", "results": [answer, *others]})
        return answer


def table(base: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """[{task, metric, filter, higher_is_better, questions, base, tuned, difference, verdict}] of both sides' rows.

    base, tuned: {value, stderr} as lm-eval gives them. difference: {value, low, high}, the 95 % interval from the same
    questions drawn for both, where the figure is the mean over questions; verdict: better, worse, same or None.
    """
    before = {_key(row): row for row in base}
    return [_compared(before[_key(row)], row) for row in tuned if _key(row) in before]


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["task"], row["metric"], row["filter"]


def _compared(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    difference = {"value": tuned["value"] - base["value"], "low": None, "high": None}
    if all(_is_mean(row) for row in (base, tuned)) and len(base["each"]) == len(tuned["each"]):
        means = [{"figure": statistics.mean(row["each"])} for row in (base, tuned)]
        difference = statistics.compare(*means)["figure"].difference._asdict()
    plain = ("task", "metric", "filter", "higher_is_better", "questions", "shots", "version")
    return {
        **{key: tuned[key] for key in plain},
        **{
            side: {key: row[key] for key in ("value", "stderr")} for side, row in zip(SIDES, (base, tuned), strict=True)
        },
        "difference": difference,
        "verdict": _verdict(difference, tuned["higher_is_better"]),
    }


def _is_mean(row: Mapping[str, Any]) -> bool:
    by_question = row["each"]
    return bool(by_question) and abs(sum(by_question) / len(by_question) - row["value"]) <= SAME_MEAN


def _verdict(difference: Mapping[str, Any], higher_is_better: bool | None) -> str | None:
    if difference["low"] is None or higher_is_better is None:
        return None
    if difference["low"] <= 0 <= difference["high"]:
        return "same"
    return "better" if (difference["value"] > 0) == higher_is_better else "worse"


def rows(run: Run) -> list[list[str]]:
    """Rows of HEAD of everything measured, for report, model card and terminal."""
    return [cells(row) for answer in results(run) for row in answer["table"]]


def cells(row: Mapping[str, Any]) -> list[str]:
    change = row["difference"]
    between = "" if change["low"] is None else f" [{change['low']:+.4f}, {change['high']:+.4f}]"
    metric = row["metric"] if row["filter"] == "none" else f"{row['metric']}, {row['filter']}"
    shots = f", {row['shots']} examples" if row["shots"] else ""
    questions = f" ({row['questions']} questions{shots})" if row["questions"] else ""
    return [
        f"{row['task']}{questions}",
        metric,
        *(_figure(row[side]) for side in SIDES),
        f"{change['value']:+.4f}{between}",
    ]


def _figure(side: Mapping[str, Any]) -> str:
    return f"{side['value']:.4f}" + ("" if side["stderr"] is None else f" ± {side['stderr']:.4f}")
