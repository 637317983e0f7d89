"""Evaluate a run: its base and itself on the same held-out rows, with the device claimed as a training claims it.

A worker loads the models and answers (worker/evaluate.py); here answers are scored as they come and written into the
run's folder (runs/evaluations.py), so that a page shows them and a stop keeps them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from studio import data, process
from studio.device import default_environment, devices
from studio.errors import DataError, DeviceError, ModelError, RunError, StudioError
from studio.evaluation import results as measured
from studio.evaluation.order import AUTO, EvaluationOrder
from studio.evaluation.questions import question, spread
from studio.evaluation.task import Task, detect
from studio.export import proof
from studio.general.verdict import advice
from studio.home import PROJECT, subfolder, write_atomic
from studio.run import Run, summary
from studio.runs import claim, evaluations
from studio.talk import chat, reference
from studio.tokens import Encoder

FILE_ROWS = 200  # rows of a file that is named, at most
LONGEST = 512  # tokens of an answer with max_new_tokens: auto, at most
SHORTEST = 24
ENCODING = ("max_length", "too_long", "train_on", "reasoning")
WORKER = "studio.worker.evaluate"
Progress = Callable[[dict[str, Any]], None]


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
    order, lock = order or run.config.evaluation or EvaluationOrder(), evaluations.lock(run)
    device_lock = claim.device_lock(devices()[0])
    if not lock.acquire():
        raise RunError(f"{run.id} is being evaluated already.", "Wait until it is done, or stop it.", "run")
    try:
        if not claimed and not device_lock.acquire():
            raise DeviceError(
                f"{devices()[0].name} is in use: a run or another examination has it.",
                "Evaluate when it has ended, or stop it.",
                "device",
            )
        chat.end_if_idle(devices()[:1])
        with _scratch(run) as place:
            found = _evaluate(run, order, name or run.id, file, rows, place, progress)
            if file is None and name in (None, run.id):
                write_atomic(evaluations.folder(run) / "results.json", json.dumps(found, ensure_ascii=False))
        return found
    finally:
        device_lock.release()
        lock.release()


@contextlib.contextmanager
def _scratch(run: Run) -> Iterator[Path]:
    """The evaluation's folder, without what an earlier one left; a failure is written there for the page."""
    place = evaluations.folder(run)
    for name in ("stop", "failed.json", "rows.jsonl"):
        (place / name).unlink(missing_ok=True)
    try:
        yield place
    except StudioError as error:
        write_atomic(place / "failed.json", json.dumps(error.as_dict(), ensure_ascii=False))
        raise
    finally:
        for name in ("progress.json", "rows.jsonl", "stop"):
            (place / name).unlink(missing_ok=True)


def _evaluate(
    run: Run, order: EvaluationOrder, name: str, file: str | None, most: int | None, place: Path, progress: Progress
) -> dict[str, Any]:
    began = time.time()
    write_atomic(place / "progress.json", json.dumps({"doing": "reading data"}))
    rows = _rows(run, file, most)
    asked = _questions(rows, order, run.config.data.train_on == "last")
    task = detect([entry["reference"] for entry in asked], order.json_schema is not None, bool(order.regex))
    job = _Job(run, place, order, task, asked, progress)
    is_stopped = job.carry_out(_worker_order(run, name, rows, asked, order))
    table = sorted(job.table, key=lambda row: row["row"])
    if is_stopped and not table and "tuned" not in job.losses:
        raise RunError("The evaluation was stopped before it had measured anything.", "Start it again.", "run")
    return {
        "run": run.id,
        "model": name,
        "data": file,
        "at": round(began, 3),
        "seconds": round(time.time() - began, 1),
        "state": "stopped" if is_stopped else "done",
        "questions": len(asked),
        "task": {**task._asdict(), "regex": order.regex, "json_schema": order.json_schema},
        "notes": job.notes,
        **measured.collect(job.whole_losses(len(rows)), table, task),
        "table": table,
    }


def _rows(run: Run, file: str | None, most: int | None) -> list[dict[str, Any]]:
    found = list(data.read(file).conversations)[: most or FILE_ROWS] if file else proof.held_out(run.config)[:most]
    rows = [{key: row[key] for key in ("text", "messages", "tools") if row.get(key)} for row in found]
    if not rows:
        raise DataError("There is nothing to measure on.", "The run held no rows out; give a file with --data.", "data")
    return rows


def _questions(rows: list[dict[str, Any]], order: EvaluationOrder, last: bool) -> list[dict[str, Any]]:
    """[{row, prompt, messages, tools, reference}], in an order of which any first part is a fair sample.

    row: the place among the rows, from 1.
    """
    known = [(place, asked) for place, row in enumerate(rows, start=1) if (asked := question(row, last))]
    return [
        {
            "row": place,
            "prompt": asked.text,
            "messages": asked.messages,
            "tools": asked.tools,
            "reference": asked.reference,
        }
        for place, asked in (known[index] for index in spread(len(known), order.rows))
    ]


def _worker_order(
    run: Run, name: str, rows: list[dict[str, Any]], asked: list[dict[str, Any]], order: EvaluationOrder
) -> dict[str, Any]:
    found, config = reference.resolve(name), run.config
    encoder = Encoder(found.tokenizer, found.template)
    longest = max((len(encoder.prompt_ids(entry["messages"])) for entry in asked), default=0)
    return {
        "base": f"base:{run.id}",
        "tuned": name,
        "rows": rows,
        "questions": [{key: entry[key] for key in ("row", "messages", "tools")} for entry in asked],
        "encoding": {key: getattr(config.data, key) for key in ENCODING},
        "overlap": config.data.overlap,
        "measure_forgetting": not (summary(run)["forgetting"] or {}).get("final") and name == run.id,
        "prompt_tokens": longest,
        "max_new_tokens": _longest_answer(asked, encoder) if order.max_new_tokens == AUTO else order.max_new_tokens,
    }


def _longest_answer(asked: list[dict[str, Any]], encoder: Encoder) -> int:
    """Half as long again as the longest reference, between SHORTEST and LONGEST tokens."""
    tokenizer = encoder.tokenizer
    lengths = [len(tokenizer.encode(entry["reference"], add_special_tokens=False).ids) for entry in asked]
    return min(LONGEST, max(SHORTEST, max(lengths, default=0) * 3 // 2))


class _Job:
    """One worker: what it prints becomes losses, the table and progress."""

    def __init__(
        self, run: Run, place: Path, order: EvaluationOrder, task: Task, asked: list[dict[str, Any]], progress: Progress
    ):
        self.run, self.place, self.order, self.task, self.progress = run, place, order, task, progress
        self.asked = {entry["row"]: entry for entry in asked}
        self.answers: dict[int, dict[str, Any]] = {}
        self.losses: dict[str, dict[int, dict[str, float]]] = {}
        self.table: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.error: dict[str, Any] | None = None
        self.doing, self.answered, self._written = "starting", 0, 0.0

    def carry_out(self, worker_order: dict[str, Any]) -> bool:
        """Run the worker to its end; True where it was stopped. Raises ModelError or what the worker says."""
        environment = {
            **os.environ,
            **chat.SERVER_ENVIRONMENT,
            **default_environment(),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        with tempfile.TemporaryDirectory(dir=subfolder("cache")) as scratch, open(self.place / "log.txt", "wb") as log:
            order_file = Path(scratch, "order.json")
            order_file.write_text(json.dumps(worker_order, ensure_ascii=False))
            with subprocess.Popen(
                [sys.executable, "-m", WORKER, str(order_file)],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                errors="replace",
                preexec_fn=partial(process.die_with_parent, os.getpid()),
            ) as worker:
                stopped = threading.Event()
                threading.Thread(target=self._stop_when_asked, args=(worker, stopped), daemon=True).start()
                for line in worker.stdout or ():
                    if line.startswith('{"kind"'):
                        self._take(json.loads(line))
        if worker.returncode and not stopped.is_set():
            raise self._failure(worker.returncode)
        return stopped.is_set()

    def _stop_when_asked(self, worker: subprocess.Popen[str], stopped: threading.Event) -> None:
        while worker.poll() is None:
            if evaluations.stop_requested(self.run):
                stopped.set()
                worker.terminate()
                return
            time.sleep(0.2)

    def _failure(self, code: int) -> StudioError:
        if self.error:
            return ModelError(self.error["message"], self.error["hint"], self.error["where"])
        last = (self.place / "log.txt").read_text(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        hint = "If memory was short, end the chat or ask fewer questions at once with shorter answers."
        return ModelError(f"The evaluation failed: {last[0][:300]}", hint, WORKER)

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
            case "error":
                self.error = event
        self._tell(event["kind"] == "doing")

    def _forgotten(self, found: dict[str, Any]) -> None:
        """Write what a training too short to measure it by itself has forgotten into the run's events."""
        config = self.run.config
        steps = advice(found["verdict"], not config.method.adapter, config.training.keep_general)
        self.run.append("forgetting", step=summary(self.run)["step"], final=True, advice=steps, **found)

    def _pair(self, event: dict[str, Any]) -> None:
        """Take one answer; with the other side's it makes a line of the table."""
        sides = self.answers.setdefault(event["row"], {})
        sides[event["side"]] = event
        if len(sides) < len(measured.SIDES):
            return
        row = measured.table_row(event["row"], self.asked[event["row"]], sides, self.task, self.order)
        self.table.append(row)
        with open(self.place / "rows.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _tell(self, at_once: bool) -> None:
        if not at_once and time.monotonic() - self._written < 0.5:
            return
        self._written = time.monotonic()
        told = {"doing": self.doing, "done": self.answered, "of": len(measured.SIDES) * len(self.asked)}
        write_atomic(self.place / "progress.json", json.dumps(told))
        self.progress(told)

    def whole_losses(self, rows: int) -> dict[str, list[dict[str, float]]]:
        """The losses by side where both sides have all rows, which a stop may have prevented."""
        if any(len(self.losses.get(side, {})) < rows for side in measured.SIDES):
            return {}
        return {side: [self.losses[side][place] for place in range(rows)] for side in measured.SIDES}


def after_training(run: Run) -> None:
    """What a run's order asks for after it has finished; the caller holds the device. A failure is its note."""
    if run.config.place.remote or (run.state_event() or {}).get("state") != "finished":
        return
    try:
        evaluate(run, claimed=True)
    except StudioError as error:
        run.append("note", level="warning", text=f"The run was not evaluated: {error.message}", hint=error.hint)


def start(run: Run, order: EvaluationOrder) -> None:
    """Begin an evaluation of a run's result as a process of its own, which outlives the caller.

    Raises RunError or DeviceError where it cannot begin.
    """
    reference.resolve(run.id)
    if evaluations.going(run):
        raise RunError(f"{run.id} is being evaluated already.", "Wait until it is done, or stop it.", "run")
    lock = claim.device_lock(devices()[0])
    if not lock.acquire():
        raise DeviceError(
            f"{devices()[0].name} is in use: a run or another examination has it.",
            "Evaluate when it has ended, or stop it.",
            "device",
        )
    lock.release()
    place = evaluations.folder(run)
    place.mkdir(exist_ok=True)
    write_atomic(place / "progress.json", json.dumps({"doing": "starting"}))
    (place / "failed.json").unlink(missing_ok=True)
    settings = order.model_dump_json(exclude_unset=True)
    command = [sys.executable, "-m", "studio", "eval", run.id, "--json", "--order", settings]
    with open(place / "page.log", "wb") as log:
        subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
