"""The card of benchmarks: tasks of lm-eval for a run and its base. A task's file is a program: the owner's alone."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from studio import benchmark
from studio.errors import OrderError
from studio.evaluation import harness
from studio.ui import files, live, rights
from studio.ui.who import VISITOR, WATCHER

HIDDEN = ("task", "base", "tuned")


@rights.job(waits=True)
def start_benchmark(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Begin a benchmark. settings: {task, limit, chat, shots}. Returns {run, state, functions (of the task's file)}."""
    run, order = live.get_run(name), harness.order_of(settings)
    if order.file is not None and files.restricted() and not files.is_upload(order.file):
        raise OrderError(
            "The file of a task can run programs and read files: on a page with a login, or that others can reach, it "
            "must lie among the uploads.",
            "Give the name of a task, or use the file in a terminal: python -m studio eval RUN --benchmark FILE.",
            "benchmark",
        )
    return {"run": run.id, "state": "going", "functions": benchmark.start(run, order)}


@rights.job()
def stop_benchmark(name: str) -> dict[str, Any]:
    """End a benchmark; the figures of earlier ones stay. Returns {run, state}."""
    return live.stop_side_job(benchmark.job(live.get_run(name)))


@rights.read(WATCHER, VISITOR)
def benchmarks(question: dict[str, Any]) -> Response:
    """{id, mark} -> {state, doing, done, of, error, install, mark, results: {at, results}}.

    install: the command that installs lm-eval, where it is missing. results: only where the mark differs.
    """
    task = benchmark.job(live.run_of(question))
    found = task.results()
    status = task.status() | {"install": None if harness.installed() else harness.INSTALL}

    def shown() -> dict[str, Any]:
        measured = [{key: value for key, value in row.items() if key not in HIDDEN} for row in found["results"]]
        return {"at": found["at"], "results": measured}

    return live.side_job_response(question, status, found, shown)
