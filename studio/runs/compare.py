"""Comparison of runs: differing settings, final numbers, curves, and answers to the same prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from studio.errors import StudioError
from studio.events import seconds
from studio.run import Run, current_events, summary

NUMBERS = (
    "state", "steps", "train_loss", "eval_loss_before", "eval_loss", "best_eval_loss", "tokens_per_second",
    "peak_memory", "trainable", "seconds"
)  # fmt: skip
AXES = ("step", "tokens", "time")


def compare(runs: list[Run]) -> dict[str, Any]:
    """{runs, settings: [{key, values}], numbers: [{key, values}], curves, answers: [{prompt, answers}]}, by run."""
    summaries = [summary(run) for run in runs]
    return {
        "runs": [row["id"] for row in summaries],
        "settings": differing(runs),
        "numbers": [{"key": key, "values": [row[key] for row in summaries]} for key in NUMBERS],
        "curves": [curves(run.events()) for run in runs],
        "answers": answers([run.events() for run in runs]),
    }


def differing(runs: list[Run]) -> list[dict[str, Any]]:
    """Keys of the order whose values differ between runs; None for a run whose order cannot be read."""
    flat: list[dict[str, Any]] = []
    for run in runs:
        try:
            flat.append(dict(_leaves(run.config.model_dump(mode="json"))))
        except StudioError:
            flat.append({})
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = [{"key": key, "values": [values.get(key) for values in flat]} for key in keys if key != "name"]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"][1:])]


def curves(events: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """{train: {step, tokens, time, loss}, eval: {…}} of a run; time: seconds of work, without pauses."""
    points: dict[str, Any] = {
        "train": {name: [] for name in (*AXES, "loss")},
        "eval": {name: [] for name in (*AXES, "loss")},
    }
    worked, before, tokens = 0.0, None, 0
    for event in current_events(events):
        if event["kind"] == "phase" and event["name"] in ("queued", "starting"):
            before = None
        if before is not None:
            worked += seconds(before, event)
        before = None if event["kind"] == "end" or (event["kind"] == "phase" and event["name"] == "queued") else event
        if event["kind"] not in ("step", "eval"):
            continue
        tokens = event.get("tokens") or tokens
        line = points["train" if event["kind"] == "step" else "eval"]
        for name, value in zip((*AXES, "loss"), (event["step"], tokens, round(worked, 2), event["loss"])):
            line[name].append(value)
    return points


def answers(event_lists: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The latest sample of each prompt that at least two runs answered."""
    latest = [
        {event.get("prompt"): event.get("answer") for event in current_events(events) if event["kind"] == "sample"}
        for events in event_lists
    ]
    prompts = dict.fromkeys(prompt for samples in latest for prompt in samples)
    return [
        {"prompt": prompt, "answers": [samples.get(prompt) for samples in latest]}
        for prompt in prompts
        if sum(prompt in samples for samples in latest) > 1
    ]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a list is a value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value
