"""What was found by a run's last evaluation, from evaluation/results.json in its folder; evaluating.py writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio import json_text
from studio.events import latest, perplexity
from studio.run import Run, current_events

KIND = "evaluation"  # the folder in the run's, and the side job's


def folder(run: Run) -> Path:
    return run.folder / KIND


def results(run: Run) -> dict[str, Any]:
    """The last evaluation's results; {} without one."""
    return json_text.read_or_default(folder(run) / "results.json", {})


def metrics(run: Run) -> dict[str, Any]:
    """{base, tuned, verdict, …} as far as they were measured: held-out loss, perplexity and token accuracy of every run
    that evaluates, and the scores of its answers after an evaluation; {} before the first measurement.
    """
    measured = results(run)
    if measured:
        return {key: value for key, value in measured.items() if key != "table"}
    evals = [event for event in current_events(run.events()) if event["kind"] == "eval" and event["loss"] is not None]
    before, after = next((event for event in evals if event["step"] == 0), None), latest(evals, "eval")
    return {
        name: {"loss": event["loss"], "perplexity": perplexity(event), "token_accuracy": event.get("accuracy")}
        for name, event in (("base", before), ("tuned", after))
        if event
    }
