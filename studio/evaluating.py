"""Evaluate a run: its base and itself on the same held-out rows, with the device claimed as a training claims it.

A worker loads the models and answers (worker/evaluate.py); here answers are scored as they come and written into the
run's folder (runs/evaluations.py), so that a page shows them and a stop keeps them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from studio import data, json_text, side_process
from studio.errors import DataError, as_studio_error, internal_error
from studio.evaluation import results as measured
from studio.evaluation.order import AUTO, EvaluationOrder
from studio.evaluation.questions import question, spread
from studio.evaluation.task import Task, detect
from studio.export import proof
from studio.general.verdict import advice
from studio.run import Run, summary
from studio.runs import evaluations
from studio.side_job import Progress, SideJob
from studio.talk import reference
from studio.tokens import Encoder

FILE_ROWS = 200  # rows of a file that is named, at most
LONGEST = 512  # tokens of an answer with max_new_tokens: auto, at most
SHORTEST = 24
ROWS = "rows.jsonl"
WORKER = "studio.worker.evaluate"


def evaluate(
    run: Run,
    order: EvaluationOrder | None = None,
    name: str | None = None,
    file: str | None = None,
    rows: int | None = None,
    progress: Progress = lambda _: None,
    claimed: bool = False,
) -> dict[str, Any]:
    """Measure a run and its base; returns and keeps what evaluation/results.py collects, with the table.

    name: RUN@checkpoint-N, measured instead of the result and not kept. file: data to measure on instead of what the
    run held out; not kept either. rows: of it, at most. claimed: the caller holds the device. Raises StudioError, also
    where a run has the device or an evaluation of this run is going on.
    """
    order, task = order or run.config.evaluation or EvaluationOrder(), job(run, progress)
    with task.working(claimed=claimed), _streamed_rows(task):
        answer = _evaluate(run, order, name or run.id, file, rows, task)
        return task.keep(answer) if file is None and name in (None, run.id) else answer


def job(run: Run, progress: Progress = lambda _: None) -> SideJob:
    return SideJob(run, evaluations.KIND, "The evaluation", progress)


@contextlib.contextmanager
def _streamed_rows(task: SideJob) -> Iterator[None]:
    """The table as far as it is answered stands in rows.jsonl while the evaluation goes on."""
    file = task.folder / ROWS
    file.unlink(missing_ok=True)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def status(run: Run, rows_from: int = 0) -> dict[str, Any]:
    """The side job's status; while it goes on also rows: the table so far, from `rows_from` on."""
    answer = job(run).status()
    if answer["state"] == "going":
        answer["rows"] = json_text.read_lines(evaluations.folder(run) / ROWS)[rows_from:]
    return answer


def _evaluate(
    run: Run, order: EvaluationOrder, name: str, file: str | None, most: int | None, task: SideJob
) -> dict[str, Any]:
    began = time.time()
    task.tell("reading data", at_once=True)
    rows = _rows(run, file, most)
    asked = _questions(rows, order, run.config.data.train_on == "last")
    kind = detect([entry["reference"] for entry in asked], order.json_schema is not None, bool(order.regex))
    answers = _Job(task, order, kind, asked)
    is_stopped = answers.carry_out(_worker_order(run, name, rows, asked, order))
    table = sorted(answers.table, key=lambda row: row["row"])
    if is_stopped and not table and "tuned" not in answers.losses:
        raise task.stopped()
    return {
        "run": run.id,
        "model": name,
        "data": file,
        "at": round(began, 3),
        "seconds": round(time.time() - began, 1),
        "state": "stopped" if is_stopped else "done",
        "questions": len(asked),
        "task": {**kind._asdict(), "regex": order.regex, "json_schema": order.json_schema},
        "notes": answers.notes,
        **measured.collect(answers.whole_losses(len(rows)), table, kind),
        "table": table,
    }


def _rows(run: Run, file: str | None, most: int | None) -> list[dict[str, Any]]:
    if file:
        conversations = list(data.read(file).conversations)[: most or FILE_ROWS]
    else:
        conversations = proof.held_out(run.config)[:most]
    rows = [{key: row[key] for key in ("text", "messages", "tools", "row") if row.get(key)} for row in conversations]
    if not rows:
        raise DataError("There is nothing to measure on.", "The run held no rows out; give a file with --data.", "data")
    return rows


def _questions(rows: list[dict[str, Any]], order: EvaluationOrder, last: bool) -> list[dict[str, Any]]:
    """[{row, data_row, prompt, messages, tools, reference}], in an order of which any first part is a fair sample.

    row: the position among the rows, from 1; data_row: the number of the row in its file.
    """
    known = [
        (position, row.get("row"), asked)
        for position, row in enumerate(rows, start=1)
        if (asked := question(row, last))
    ]
    return [
        {
            "row": position,
            "data_row": data_row,
            "prompt": asked.text,
            "messages": asked.messages,
            "tools": asked.tools,
            "reference": asked.reference,
        }
        for position, data_row, asked in (known[index] for index in spread(len(known), order.rows))
    ]


def _worker_order(
    run: Run, name: str, rows: list[dict[str, Any]], asked: list[dict[str, Any]], order: EvaluationOrder
) -> dict[str, Any]:
    found, config = reference.resolve(name), run.config
    encoder = Encoder(found.tokenizer, found.template)
    lengths = (len(encoder.prompt_ids(entry["messages"], tools=entry["tools"])) for entry in asked)
    return {
        "base": f"base:{run.id}",
        "tuned": name,
        "rows": rows,
        "questions": [{key: entry[key] for key in ("row", "messages", "tools")} for entry in asked],
        "encoding": Encoder.settings(config.data),
        "overlap": config.data.overlap,
        "measure_forgetting": not (summary(run)["forgetting"] or {}).get("final") and name == run.id,
        "prompt_tokens": max(lengths, default=0),
        "max_new_tokens": _longest_answer(asked, encoder) if order.max_new_tokens == AUTO else order.max_new_tokens,
    }


def _longest_answer(asked: list[dict[str, Any]], encoder: Encoder) -> int:
    """Half as long again as the longest reference, between SHORTEST and LONGEST tokens."""
    tokenizer = encoder.tokenizer
    lengths = [len(tokenizer.encode(entry["reference"], add_special_tokens=False).ids) for entry in asked]
    return min(LONGEST, max(SHORTEST, max(lengths, default=0) * 3 // 2))


class _Job:
    """One worker: what it prints becomes losses, the table and progress."""

    def __init__(self, task: SideJob, order: EvaluationOrder, kind: Task, asked: list[dict[str, Any]]):
        self.task, self.order, self.kind = task, order, kind
        self.asked = {entry["row"]: entry for entry in asked}
        self.answers: dict[int, dict[str, Any]] = {}
        self.losses: dict[str, dict[int, dict[str, float]]] = {}
        self.table: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.doing, self.answered = "starting", 0

    def carry_out(self, worker_order: dict[str, Any]) -> bool:
        """Run the worker to its end; True where it was stopped. Raises ModelError."""
        return self.task.stream(WORKER, worker_order, self._take)

    def _take(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "doing":
                self.doing = event["doing"]
            case "loss":
                self.losses.setdefault(event["side"], {})[event["row"]] = event
            case "forgetting":
                self._forgotten({key: value for key, value in event.items() if key != "kind"})
            case "answer":
                self.answered += 1
                self._pair(event)
            case "note":
                self.notes.append(event["text"])
        self._tell(event["kind"] == "doing")

    def _forgotten(self, found: dict[str, Any]) -> None:
        """Write what a training too short to measure it by itself has forgotten into the run's events."""
        run = self.task.run
        steps = advice(found["verdict"], not run.config.method.adapter, run.config.training.keep_general)
        run.append("forgetting", step=summary(run)["step"], final=True, advice=steps, **found)

    def _pair(self, event: dict[str, Any]) -> None:
        """Take one answer; with the other side's it makes a line of the table."""
        sides = self.answers.setdefault(event["row"], {})
        sides[event["side"]] = event
        if len(sides) < len(measured.SIDES):
            return
        row = measured.table_row(event["row"], self.asked[event["row"]], sides, self.kind, self.order)
        self.table.append(row)
        json_text.append_line(self.task.folder / ROWS, row)

    def _tell(self, at_once: bool) -> None:
        self.task.tell(self.doing, self.answered, len(measured.SIDES) * len(self.asked), at_once)

    def whole_losses(self, rows: int) -> dict[str, list[dict[str, float]]]:
        """The losses by side where both sides have all rows, which a stop may have prevented. Without the rows for
        which memory was short.
        """
        sides = [self.losses.get(side, {}) for side in measured.SIDES]
        if any(len(losses) < rows for losses in sides):
            return {}
        rows_of_both = [row for row in range(rows) if not any(losses[row]["left_out"] for losses in sides)]
        return {side: [losses[row] for row in rows_of_both] for side, losses in zip(measured.SIDES, sides, strict=True)}


def after_training(run: Run) -> None:
    """What a run's order asks for after it has finished; the caller holds the device. A failure is its note."""
    if run.config.place.remote or (run.state_event() or {}).get("state") != "finished":
        return
    try:
        evaluate(run, claimed=True)
    except Exception as error:  # noqa: BLE001 - the run is told, and the queue advanced
        explained = as_studio_error(error) or internal_error(error)
        run.note(f"The run was not evaluated: {explained.message}", explained.hint)


def start(run: Run, order: EvaluationOrder) -> None:
    """Begin an evaluation as a process that outlives the caller. Raises RunError or DeviceError where it cannot."""
    reference.resolve(run.id)
    side_process.begin(job(run), "eval", order.model_dump(mode="json", exclude_unset=True))
