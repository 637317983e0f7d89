"""A run's evaluation by answers, as it stands in its folder.

evaluation/results.json holds the last complete one; while one is going on, evaluation/lock is held, progress.json says
what it does and rows.jsonl grows. A file stop asks for the end.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from studio import events, json_text
from studio.events import Lock, latest
from studio.run import Run, current_events

STARTING = 30.0  # seconds that a process that was just begun has until it holds the lock


def folder(run: Run) -> Path:
    return run.folder / "evaluation"


def lock(run: Run) -> Lock:
    return Lock(folder(run) / "lock")


def request_stop(run: Run) -> None:
    """End a running evaluation; what was answered so far is its result."""
    if folder(run).is_dir():
        (folder(run) / "stop").touch()


def stop_requested(run: Run) -> bool:
    """Whether the end is asked for: of the evaluation, or of the run that it belongs to while that is alive.

    A stopped run keeps its stop file; it can be evaluated all the same.
    """
    return (folder(run) / "stop").exists() or (run.stop_file.exists() and run.alive())


def results(run: Run) -> dict[str, Any]:
    """The last evaluation's results; {} without one."""
    return json_text.read_or_default(folder(run) / "results.json", {})


def going(run: Run) -> bool:
    """Whether an evaluation is going on or has just been started."""
    if events.is_locked(folder(run) / "lock"):
        return True
    progress = folder(run) / "progress.json"
    try:
        return time.time() - progress.stat().st_mtime < STARTING and "starting" in progress.read_text()
    except OSError:
        return False


def status(run: Run, rows_from: int = 0) -> dict[str, Any]:
    """{state: none, going, done, stopped, failed or cut off; doing, done, of, rows, error}.

    rows: of the table so far, from `rows_from` on, while one is going.
    """
    place = folder(run)
    progress, failure = (json_text.read_or_default(place / f"{name}.json", {}) for name in ("progress", "failed"))
    if going(run):
        return {"state": "going", **progress, "rows": _streamed(place / "rows.jsonl")[rows_from:]}
    if failure:
        return {"state": "failed", "error": failure}
    if progress:
        return {"state": "cut off"}
    found = results(run)
    return {"state": found.get("state", "done") if found else "none"}


def _streamed(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def metrics(run: Run) -> dict[str, Any]:
    """{base, tuned, verdict, …} as far as they were measured: held-out loss, perplexity and token accuracy of every run
    that evaluates, and the scores of its answers after an evaluation; {} before the first measurement.
    """
    found = results(run)
    if found:
        return {key: value for key, value in found.items() if key != "table"}
    evals = [event for event in current_events(run.events()) if event["kind"] == "eval" and event["loss"] is not None]
    before, after = next((event for event in evals if event["step"] == 0), None), latest(evals, "eval")
    return {name: _figures(event) for name, event in (("base", before), ("tuned", after)) if event}


def _figures(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "loss": event["loss"],
        "perplexity": math.exp(min(event["loss"], 50)),
        "token_accuracy": event.get("accuracy"),
    }
