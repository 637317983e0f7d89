"""Which rows taught it: the training rows whose gradients point where an answer's does, or against what is held out.

A worker takes the gradients (worker/influence.py); they are kept in the run's folder, so that the next question costs
only its own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter

from studio import data
from studio.config import RunConfig
from studio.errors import OrderError
from studio.run import Run
from studio.side_job import Progress, SideJob
from studio.talk import reference

KIND = "influence"
WORKER = "studio.worker.influence"
SEED = 0  # of the projection
DIMENSION = 8192  # numbers kept of a gradient, as LESS has it; fewer for many rows
LEAST_DIMENSION = 1024
KEPT_BYTES = 128 * 2**20  # of gradients in a run's folder, about
TABLES = 2  # of them at most (worker/influence.py, WAY)
MOST_ROWS = 20_000
MOST_HELD_OUT = 200
LISTED = 10  # rows of each list
TEXT = 1500  # characters of a row in a list


class Entry(BaseModel):
    """One row of a list."""

    row: int
    score: float
    source: str


class Found(BaseModel):
    """What every answer holds."""

    at: float
    rows: list[Entry]
    against: list[Entry]
    harmful: list[Entry]


def job(run: Run, progress: Progress = lambda _: None) -> SideJob:
    task = SideJob(run, KIND, "The search for influential rows", progress)
    task.shape = TypeAdapter(Found)
    return task


def check(run: Run) -> reference.ModelReference:
    """The run's result. Raises OrderError where its method has no adapter, RunError where there is no result."""
    result = reference.resolve(run.id)
    if not run.config.stage.is_supervised:
        message = f"Influence follows the loss of single answers, and {run.config.stage.label} compared several."
        hint = "Look at a run of supervised tuning."
        raise OrderError(message, hint, "stage")
    if not run.config.method.adapter:
        raise OrderError(
            f"{run.config.method.label} trains all weights: a gradient of each row would be as large as the model, and "
            "nothing small stands for what was learnt.",
            "Train the same data with an adapter, such as LoRA, and look at that run.",
            "method",
        )
    return result


def influences(
    run: Run,
    prompt: Any = None,
    answer: str | None = None,
    held_out: bool = True,
    progress: Progress = lambda _: None,
    most_rows: int = MOST_ROWS,
) -> dict[str, Any]:
    """{rows: [{row, score, source, text}], against, harmful, answer, …}: training rows, most helpful first.

    prompt: a question, or the messages up to the answer. answer: by default the run's own. rows: every row, best first,
    the text of the first and last LISTED; against: the last ones, worst first; harmful: those whose gradients point
    against that of the held-out rows. Raises StudioError.
    """
    result, task = check(run), job(run, progress)
    began = time.time()
    with task.working():
        printed = task.carry_out(
            WORKER,
            {
                "run": run.id,
                "model": run.id,
                "prompt": prompt,
                "answer": answer,
                "held_out": held_out,
                "seed": SEED,
                "dimension": dimension(run),
                "most_rows": most_rows,
                "most_held_out": MOST_HELD_OUT,
                "cache": str(_cache(task.folder, result, dimension(run), most_rows)),
            },
        )
        collected = _collect(run.config, printed)
        return task.keep(
            {"run": run.id, "at": round(began, 3), "seconds": round(time.time() - began, 1), "prompt": prompt}
            | collected
        )


def dimension(run: Run) -> int:
    """Numbers kept of a gradient: as many as KEPT_BYTES allow for the run's rows, a power of two."""
    rows = min(MOST_ROWS, int(run.plan().get("rows") or MOST_ROWS))
    size = DIMENSION
    while size > LEAST_DIMENSION and 2 * TABLES * size * rows > KEPT_BYTES:
        size //= 2
    return size


def _cache(folder: Path, found: reference.ModelReference, size: int, most_rows: int) -> Path:
    """The stem of the files of kept gradients; those of another result or of other settings are deleted."""
    weights = sorted(found.result.rglob("*.safetensors")) if found.result else []
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weights]
    key = hashlib.sha256(json.dumps([about, size, most_rows, SEED, TABLES]).encode()).hexdigest()[:16]
    for file in [*folder.glob("gradients-*.npy"), *folder.glob("gradients-*.done")]:
        if not file.name.startswith(f"gradients-{key}"):
            file.unlink(missing_ok=True)
    return folder / f"gradients-{key}"


def _collect(config: RunConfig, printed: list[dict[str, Any]]) -> dict[str, Any]:
    sources = [source.source for source in config.data.sources()]
    answer = next((event["text"] for event in printed if event["kind"] == "answer"), None)
    lists = {event["of"]: event for event in printed if event["kind"] == "scores"}
    ranked = {
        name: sorted(
            (
                {"row": row, "score": score, "source": sources[source]}
                for (source, row), score in zip(event["rows"], event["scores"], strict=True)
            ),
            key=lambda entry: -entry["score"],
        )
        for name, event in lists.items()
    }
    rows = ranked.get("answer", [])
    against = [entry for entry in reversed(rows[LISTED:]) if entry["score"] < 0][:LISTED]
    harmful = [entry for entry in reversed(ranked.get("held_out", [])) if entry["score"] < 0][:LISTED]
    _add_texts(config, [*rows[:LISTED], *against, *harmful])
    return {
        "answer": answer,
        "rows": rows,
        "against": against,
        "harmful": harmful,
        "of": len(next(iter(lists.values()), {"rows": []})["rows"]),
        "left_out": sum(event["rows"] for event in printed if event["kind"] == "note"),
    }


def _add_texts(config: RunConfig, entries: Iterable[dict[str, Any]]) -> None:
    """Give each entry "text", and "turns" where it is a conversation."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        by_source.setdefault(entry["source"], []).append(entry)
    for source, found in by_source.items():
        conversations = dataset_of(config, source).conversations
        numbers = conversations.row_numbers
        for entry in found:
            row = conversations[int(np.searchsorted(numbers, entry["row"]))]
            entry["text"] = _text(row)[:TEXT]


def _text(row: dict[str, Any]) -> str:
    if "text" in row:
        return str(row["text"])
    return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in row["messages"])


def dataset_of(config: RunConfig, source: str) -> data.Dataset:
    order = config.data
    return data.read(source, order.format, order.mapping, encoding=order.encoding)
