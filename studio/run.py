"""A run is a folder. Run reads it and answers; whoever can read the folder knows all there is to know."""

from __future__ import annotations

import os
import re
import shutil
import time
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from studio import events
from studio.config import RunConfig, parse
from studio.errors import OrderError, RunError
from studio.home import inside, room, slug, sync_folder, write_whole

STATES = ("queued", "starting", "running", "stopping", "finished", "stopped", "failed", "lost")
ALIVE = ("starting", "running", "stopping")
WORKING = ("training", "evaluating", "saving")  # phases in which steps have begun


class Run:
    """One run's folder: its order, diary, log, checkpoints and result."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    # -- where things are

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def diary(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def result(self) -> Path:
        return self.folder / "model"

    @cached_property
    def config(self) -> RunConfig:
        """The order as it was given. Raises RunError when the file is gone or was changed into something unreadable."""
        file = self.folder / "config.yaml"
        try:
            return parse(file.read_text(), where=str(file))
        except OSError as error:
            raise RunError(f"The run {self.id} has no readable config.yaml.", "Start a new run with the same settings.", str(file)) from error

    # -- what it says

    def events(self) -> list[dict[str, Any]]:
        return events.read(self.diary)[0]

    def alive(self) -> bool:
        """Whether the run's supervisor lives: it alone holds the lock."""
        return events.held(self.lock)

    def state(self, diary: list[dict[str, Any]] | None = None) -> str:
        """One of STATES, from lock and diary."""
        alive = self.alive()  # asked before the diary is read: an end written in between is then seen
        diary = self.events() if diary is None else diary
        last = next((event for event in reversed(diary) if event["kind"] in ("phase", "end")), None)
        if last is not None and last["kind"] == "end":
            return last["state"]
        if not alive:
            return "queued" if last is None or last["name"] == "queued" else "lost"
        if self.stop_file.exists():
            return "stopping"
        return "running" if last is not None and last["name"] in WORKING else "starting"

    def append(self, kind: str, /, **fields: Any) -> None:
        events.append(self.diary, kind, **fields)

    def ask_to_stop(self, discard: bool = False) -> None:
        """Leave the stop file: the trainer ends after its step and saves, or with discard ends without a result."""
        write_whole(self.stop_file, "discard\n" if discard else "")

    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


def create(config: RunConfig, model_label: str | None = None) -> Run:
    """Make a run's folder with its order in it, whole or not at all. Its first event says that it is queued."""
    label = model_label or Path(config.model.source).stem.lower()
    name = slug(config.name or f"{config.method.name}-{label}", "run")
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M")
    temporary = room("runs") / f".{os.getpid()}-{time.monotonic_ns()}.tmp"
    temporary.mkdir()
    (temporary / "config.yaml").write_text(config.to_yaml())
    events.append(temporary / "events.jsonl", "phase", name="queued", attempt=0)
    for extra in range(1, 1000):
        folder = room("runs") / (f"{stamp}-{name}" if extra == 1 else f"{stamp}-{name}-{extra}")
        try:
            os.rename(temporary, folder)  # fails when a non-empty folder stands there
        except OSError:
            continue
        sync_folder(folder.parent)
        return Run(folder)
    shutil.rmtree(temporary)
    raise RunError("A thousand runs of one name in one minute.", "Give another name.", "name")


def runs() -> list[Run]:
    """All runs, newest first."""
    folders = [path for path in room("runs").iterdir() if (path / "config.yaml").is_file() and not path.name.startswith(".")]
    return [Run(path) for path in sorted(folders, key=lambda path: path.name, reverse=True)]


def find(name: str) -> Run:
    """A run by its id, by a unique part of it, or `last`. Raises RunError that lists near ones."""
    everything = runs()
    if name == "last" and everything:
        return max(everything, key=lambda run: (run.folder / "config.yaml").stat().st_mtime_ns)
    exact = [run for run in everything if run.id == name]
    partly = exact or [run for run in everything if name and name in run.id]
    if len(partly) == 1:
        return partly[0]
    if len(partly) > 1:
        raise RunError(f"{len(partly)} runs have {name!r} in their name: {', '.join(run.id for run in partly[:5])}.", "Give more of the name.", "run")
    known = ", ".join(run.id for run in everything[:5]) or "there is none yet"
    raise RunError(f"There is no run {name!r}.", f"Runs: {known}.", "run")


def delete(run: Run) -> int:
    """Remove a run that is not alive; returns the bytes freed. The folder is renamed first, so no half of it is ever listed."""
    if run.alive():
        raise RunError(f"{run.id} is still running.", "Stop it first.", "run")
    size = run.size()
    grave = inside(room("runs"), f".{run.id}.deleted")
    os.rename(run.folder, grave)
    shutil.rmtree(grave)
    return size


# -- the summary that `runs`, `show` and the page's table give


def current(diary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The diary without what a resume has superseded: steps beyond the checkpoint it went on from."""
    kept: list[dict[str, Any]] = []
    for event in diary:
        if event["kind"] == "phase" and event.get("from_step") is not None:
            kept = [old for old in kept if old.get("step") is None or old["step"] <= event["from_step"]]
        kept.append(event)
    return kept


def summary(run: Run, diary: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What a run is and how it stands, under the names of the surface; unknown values are None. Bytes and seconds.

    diary: given by who has read it already; at least all but the middle steps of it.
    """
    diary = current(run.events() if diary is None else diary)
    state = run.state(diary)
    steps = [event for event in diary if event["kind"] == "step"]
    evals = [event for event in diary if event["kind"] == "eval" and event.get("loss") is not None]
    plan: dict[str, Any] = next((event for event in reversed(diary) if event["kind"] == "plan"), {})
    end: dict[str, Any] = diary[-1] if diary and diary[-1]["kind"] == "end" else {}
    last: dict[str, Any] = steps[-1] if steps else {}
    cause, action = end.get("cause"), end.get("action")
    if state == "lost":
        cause, action = LOST
    return {
        "id": run.id, "state": state, "phase": phase(diary), "cause": cause, "action": action, **_ordered(run),
        "step": last.get("step", 0), "steps": plan.get("steps"), "epoch": last.get("epoch"),
        "train_loss": last.get("loss"), "eval_loss": evals[-1]["loss"] if evals else None,
        "eval_loss_before": next((event["loss"] for event in evals if event["step"] == 0), None),
        "best_eval_loss": min((event["loss"] for event in evals), default=None),
        "learning_rate": last.get("learning_rate"), "tokens_per_second": _speed(steps),
        "peak_memory": max((event["memory"] for event in steps if event.get("memory")), default=end.get("peak_memory")),
        "estimated_memory": plan.get("estimated_memory"), "trainable": plan.get("trainable"), "parameters": plan.get("parameters"),
        "seconds": _seconds(diary, state), "created": diary[0]["at"] if diary else (run.folder / "config.yaml").stat().st_mtime,
        "result": str(run.result) if (run.result / "manifest.json").is_file() else None,
    }


LOST = ("The run's supervisor is gone and left no word: the computer was restarted, or somebody killed it.",
        "Resume the run: it goes on from its last checkpoint.")


def phase(diary: list[dict[str, Any]]) -> str | None:
    return next((event["name"] for event in reversed(diary) if event["kind"] == "phase"), None)


def _ordered(run: Run) -> dict[str, Any]:
    try:
        config = run.config
    except (OrderError, RunError):
        return {"name": run.id, "model": None, "method": None, "data": None}
    train = config.data.train
    data = train if isinstance(train, str) else ", ".join(item.source for item in train)
    name = config.name or re.sub(r"^\d{4}-\d\d-\d\d-\d{4}-", "", run.id)
    return {"name": name, "model": config.model.source, "method": config.method.name, "data": data}


def _speed(steps: list[dict[str, Any]]) -> float | None:
    """Tokens per second over the last ten points."""
    speeds = [event["tokens_per_second"] for event in steps[-10:] if event.get("tokens_per_second")]
    return round(sum(speeds) / len(speeds), 1) if speeds else None


def _seconds(diary: list[dict[str, Any]], state: str) -> float:
    """Seconds of work over all attempts: from each start to its end, or to the last sign of life."""
    total, began, last = 0.0, None, 0.0
    for event in diary:
        if event["kind"] == "phase" and event["name"] == "starting":
            total, began = total + (last - began if began else 0.0), event["at"]
        elif event["kind"] == "phase" and event["name"] == "queued":
            total, began = total + (last - began if began else 0.0), None
        last = event["at"]
    if began:
        total += (time.time() if state in ALIVE else last) - began
    return round(max(total, 0.0), 1)


