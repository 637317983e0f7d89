"""The card of influential rows: ask which training rows taught an answer, and train again without some."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from studio import influence, side_process, without_rows
from studio.errors import OrderError
from studio.ui import live, rights
from studio.ui.who import VISITOR, WATCHER

MOST_CHARACTERS = 100_000  # of a prompt with its answer
LISTS = ("rows", "against", "harmful")


@rights.job(waits=True)
def find_influence(name: str, prompt: Any, answer: str | None) -> dict[str, Any]:
    """Begin the search for the rows that taught an answer. Returns {run, state}.

    prompt: a question, the messages before the answer, or None for the rows that hurt the held-out loss alone. answer:
    None for the run's own.
    """
    run = live.get_run(name)
    _check(prompt, answer)
    influence.check(run)
    side_process.begin(influence.job(run), "influence", {"prompt": prompt, "answer": answer})
    return {"run": run.id, "state": "going"}


def _check(prompt: Any, answer: Any) -> None:
    turns = prompt if isinstance(prompt, list) else []
    good = prompt is None or isinstance(prompt, str) or (turns and all(map(_is_turn, turns)))
    if not good or not (answer is None or isinstance(answer, str)) or (prompt is None and answer is not None):
        raise OrderError("The question must be text or a list of turns, and the answer text.", "Ask again.", "prompt")
    if len(json.dumps(prompt)) + len(answer or "") > MOST_CHARACTERS:
        raise OrderError(f"The question and answer have more than {MOST_CHARACTERS} characters.", "Shorten them.", "")


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("system", "user", "assistant")
        and isinstance(turn.get("content"), str)
    )


@rights.job()
def stop_influence(name: str) -> dict[str, Any]:
    """End a search; the gradients taken so far are kept. Returns {run, state}."""
    return live.stop_side_job(influence.job(live.get_run(name)))


@rights.job(waits=True)
def train_without(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Queue the run again without some rows, {row, source} each, on the same held-out rows. Returns {run, state}."""
    entries = [
        {"row": entry["row"], "source": entry["source"]}
        for entry in (rows if isinstance(rows, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("row"), int) and isinstance(entry.get("source"), str)
    ]
    return live.changed(without_rows.again(live.get_run(name), entries))


@rights.read(WATCHER, VISITOR)
def influences(question: dict[str, Any]) -> Response:
    """{id, mark} -> {state, doing, done, of, error, mark, results}: results only where the mark differs."""
    task = influence.job(live.run_of(question))
    found = task.results()
    return live.side_job_response(
        question, task.status(), found, lambda: {**found, **{name: found[name][: influence.LISTED] for name in LISTS}}
    )
