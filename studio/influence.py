"""Which rows taught it: the training rows whose gradients point where an answer's does, or against what is held out.

A worker takes the gradients (worker/influence.py); they are kept in the run's folder, so that the next question costs
only its own. Rows can be left out and the run repeated, measured on the same held-out rows.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from studio import data, preflight, queue
from studio.config import RunConfig
from studio.data.editing.operations import Delete
from studio.data.editing.rows import encoded as as_line
from studio.data.editing.rows import rows_of
from studio.data.editing.saving import write
from studio.data.editing.state import State
from studio.errors import OrderError
from studio.home import slug, subfolder, temporary_path
from studio.run import Run
from studio.side_job import Progress, SideJob
from studio.talk import reference
from studio.tokens import Encoder

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


def job(run: Run, progress: Progress = lambda _: None) -> SideJob:
    return SideJob(run, KIND, "The search for influential rows", progress)


def check(run: Run) -> reference.ModelReference:
    """The run's result. Raises OrderError where its method has no adapter, RunError where there is no result."""
    result = reference.resolve(run.id)
    if not run.config.stage.is_supervised:
        raise OrderError(
            f"Influence follows the loss of single answers, and {run.config.stage.label} compared several.",
            "Look at a run of supervised tuning.",
            "stage",
        )
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
        conversations = _dataset(config, source).conversations
        numbers = conversations.row_numbers
        for entry in found:
            row = conversations[int(np.searchsorted(numbers, entry["row"]))]
            entry["text"] = _text(row)[:TEXT]


def _text(row: dict[str, Any]) -> str:
    if "text" in row:
        return str(row["text"])
    return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in row["messages"])


def _dataset(config: RunConfig, source: str) -> data.Dataset:
    order = config.data
    return data.read(source, order.format, order.mapping, encoding=order.encoding)


# -- without these rows


def without(run: Run, rows: list[dict[str, Any]]) -> RunConfig:
    """The order without some rows {source, row}, on new files, with the same held-out rows. Raises OrderError."""
    config = run.config
    encoder = Encoder.from_order(config.data, reference.resolve(run.id).base)
    trained: dict[str, set[int]] = {source.source: set() for source in config.data.sources()}
    for dataset, conversation, _ in data.training_examples(config.data, encoder, config.training.seed):
        trained[dataset.source].add(int(conversation["row"]))
    dropped: dict[str, set[int]] = {}
    for entry in rows:
        source = entry.get("source", next(iter(trained)))
        if entry.get("row") not in trained.get(source, set()):
            raise OrderError(
                f"The run was not trained on row {entry.get('row')} of {source}.", "Choose rows from the lists.", "rows"
            )
        dropped.setdefault(source, set()).add(entry["row"])
    if not dropped:
        raise OrderError("No row was chosen.", "Choose at least one row.", "rows")
    changes: dict[str, Any] = {}
    shared = isinstance(config.data.eval, float | int) and config.data.eval > 0
    held = data.held_out(config.data, encoder, config.training.seed) if shared else []
    sources = [source.model_dump() for source in config.data.sources()]
    for source in sources:
        name = source["source"]
        gone = dropped.get(name, set())
        if shared:  # what was held out before must not be trained on now
            gone = gone | (set(_dataset(config, name).conversations.rows) - trained[name])
        if gone:
            source["source"] = _edited(config, name, gone)
    changes["train"] = sources if isinstance(config.data.train, list) else sources[0]["source"]
    if held:
        changes["eval"] = str(_held_file(run, held))
    count = sum(map(len, dropped.values()))
    plain = config.model_dump(mode="json", exclude_unset=True)
    plain["data"] = {**plain["data"], **changes}
    plain["name"] = f"{config.name or run.id} without {count} {'row' if count == 1 else 'rows'}"[:80]
    return RunConfig.model_validate(plain)


def _edited(config: RunConfig, source: str, rows: set[int]) -> str:
    order, dataset = config.data, _dataset(config, source)
    state = State(rows_of(source, dataset, order.format, order.mapping, order.encoding), [])
    state.apply(Delete(op="delete", rows=sorted(rows)))
    return write(dataset, state)["file"]


def _held_file(run: Run, conversations: list[dict[str, Any]]) -> Path:
    """The held-out conversations as a data file of their own among the uploads."""
    lines = [
        as_line({key: row[key] for key in ("messages", "tools", "text") if row.get(key)}) + b"\n"
        for row in conversations
    ]
    content = b"".join(lines)
    name = f"{slug(run.id)[:60]}-held-out-{hashlib.sha256(content).hexdigest()[:8]}.jsonl"
    path = subfolder("uploads") / name
    draft = temporary_path(path)
    draft.write_bytes(content)
    draft.replace(path)
    return path


def again(run: Run, rows: list[dict[str, Any]]) -> Run:
    """Queue the run anew without these rows."""
    config = without(run, rows)
    preflight.check(config)
    return queue.submit(config)
