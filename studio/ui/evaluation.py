"""The evaluation card of a finished run, and the leaderboard of runs on one data set."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from studio import evaluating
from studio.errors import RunError, wrong_setting
from studio.evaluation import table
from studio.evaluation.order import EvaluationOrder
from studio.json_text import whole_number
from studio.runs import evaluations, leaderboard
from studio.ui import live, rights
from studio.ui.who import VISITOR, WATCHER

MOST_ROWS = 1000  # of a table, on the page; the files have all
PLAIN_TEXT = {"X-Content-Type-Options": "nosniff"}


@rights.job(waits=True)
def evaluate(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Begin the evaluation of a run by answers. settings: as the order's `evaluation`. Returns {run, state}."""
    chosen = live.get_run(name)
    try:
        order = EvaluationOrder.model_validate(settings)
    except ValidationError as error:
        raise wrong_setting(error, "evaluation") from error
    evaluating.start(chosen, order)
    return {"run": chosen.id, "state": "going"}


@rights.job()
def stop_evaluation(name: str) -> dict[str, Any]:
    """End an evaluation; what both models have answered so far is its result. Returns {run, state}."""
    return live.stop_side_job(evaluating.job(live.get_run(name)))


@rights.read(WATCHER, VISITOR)
def evaluation(question: dict[str, Any]) -> Response:
    """{id, rows, mark} -> how a run's evaluation stands: {state, doing, done, of, rows, error, held_out, results}.

    rows: of the table from that place on, while it goes on. results: of the last one, unless the page has those of this
    mark; at most MOST_ROWS of its table.
    """
    chosen = live.run_of(question)
    status = evaluating.status(chosen, whole_number(question.get("rows")))
    status["metrics"] = evaluations.metrics(chosen)
    found = evaluations.results(chosen)
    return live.side_job_response(
        question, status, found, lambda: {**found, "table": found["table"][:MOST_ROWS], "of": len(found["table"])}
    )


@rights.read(WATCHER, VISITOR)
def evaluation_file(question: dict[str, Any]) -> Response:
    """A run's evaluation as a file. kind: csv (the table) or json (everything)."""
    found, kind = evaluations.results(live.run_of(question)), question.get("kind")
    if not found or kind not in ("csv", "json"):
        raise RunError("There is no such file.", "Evaluate the run first; then take csv or json.", "kind")
    text = table.as_csv(found["table"]) if kind == "csv" else table.as_json(found)
    return Response(text, media_type="text/plain; charset=utf-8", headers=PLAIN_TEXT)


@rights.read(WATCHER, VISITOR, waits=True)
def leaders(question: dict[str, Any]) -> Response:
    """{kind: a data set} -> {groups: [{data, name, runs}], data, rows}: of one, by default the newest."""
    groups = leaderboard.groups()
    source = question.get("kind") or (groups[0]["data"] if groups else None)
    rows = leaderboard.leaderboard(str(source)) if source in [group["data"] for group in groups] else []
    return live.json_response({"groups": groups, "data": source, "rows": rows})
