"""The judge's card: another model compares the answers of base and tuned; only the owner names its address."""

from __future__ import annotations

import os
from typing import Any

from starlette.responses import Response

from studio import judge, side_process
from studio.errors import OrderError
from studio.ui import live, rights, who
from studio.ui.who import OWNER, VISITOR, WATCHER

HIDDEN = ("url", "rows")


@rights.job(waits=True)
def judge_answers(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Begin to judge answers. settings: the command's (url, model, prompt, rows, per_minute, minutes)."""
    run = live.get_run(name)
    if not isinstance(settings, dict):
        raise OrderError("The settings of the judge must be named.", "Give url and model.", "judge")
    order = judge.order_of(settings)
    judge.table_of(run)
    side_process.begin(judge.job(run), "judge", order.model_dump(), device=False)
    return {"run": run.id, "state": "going"}


@rights.job()
def stop_judging(name: str) -> dict[str, Any]:
    """End a judging; what was judged so far is its result. Returns {run, state}."""
    return live.stop_side_job(judge.job(live.get_run(name)))


@rights.read(WATCHER, VISITOR)
def judgement(question: dict[str, Any]) -> Response:
    """{id, mark} -> {state, doing, done, of, error, prompt, answers, key, mark, results}.

    prompt: the default one. answers: whether there are any to judge. key, url: only the owner is told. results: only
    where the mark differs.
    """
    run = live.run_of(question)
    status, found = judge.job(run).status(), judge.job(run).results()
    status |= {"prompt": judge.PROMPT, "answers": bool(judge.evaluations.results(run).get("table"))}
    if who.role.get() == OWNER:
        status |= {"key": bool(os.environ.get(judge.KEY)), "url": found.get("url", "")}
    return live.side_job_response(
        question, status, found, lambda: {key: value for key, value in found.items() if key not in HIDDEN}
    )
