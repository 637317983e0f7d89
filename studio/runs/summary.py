"""What a run's diary says, in one look: the fields that `runs`, `show` and the page's table give. Pure reading."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import events
from studio.errors import OrderError, RunError
from studio.runs.diagnosis import diagnose_lost

if TYPE_CHECKING:
    from studio.run import Run

STATES = ("queued", "starting", "running", "stopping", "finished", "stopped", "failed", "lost")
ALIVE = ("starting", "running", "stopping")
WORKING = ("training", "evaluating", "saving", "reconnecting")  # phases in which steps have begun
STATE_EVENTS = ("phase", "end")  # the kinds of event that a state is derived from


def derive_state(alive: bool, state_event: dict[str, Any] | None, stop: bool) -> str:
    """One of STATES. alive: whether the lock was held, asked before the diary was read; turn: its last phase or end; stop: the stop file.

    A run whose lock is held is never over, even behind its end line: its processes still hold memory.
    """
    ended = state_event is not None and state_event["kind"] == "end"
    if not alive:
        if ended:
            return state_event["state"]
        return "queued" if state_event is None or state_event["name"] == "queued" else "lost"
    if stop:
        return "stopping"
    return "running" if ended or (state_event is not None and state_event["name"] in WORKING) else "starting"


def current_events(diary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The diary without what a resume has superseded: steps beyond the checkpoint it went on from."""
    kept: list[dict[str, Any]] = []
    for event in diary:
        if event["kind"] == "phase" and event.get("from_step") is not None:
            kept = [old for old in kept if old.get("step") is None or old["step"] <= event["from_step"]]
        kept.append(event)
    return kept


def phase(diary: list[dict[str, Any]]) -> str | None:
    return events.latest(diary, "phase").get("name")


def summary(run: Run, diary: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What a run is and how it stands, under the names of the surface; unknown values are None. Bytes and seconds.

    diary: given by who has read it already, in its order; it may lack steps in the middle. It was read before the lock is asked here, so
    a run that ends just then looks lost: such a caller reads on and asks again.
    """
    alive = run.alive()  # before the diary is read: an end written in between is then seen
    state_event = (
        run.state_event()
        if diary is None
        else next((event for event in reversed(diary) if event["kind"] in STATE_EVENTS), None)
    )
    told = dict(_told_now(run.events_file) if diary is None else _told_by(diary))
    spans = told.pop("spans")
    state = derive_state(alive, state_event or run.implied_state_event(), run.stop_file.exists())
    waiting = state_event if state == "queued" and state_event else {}
    over: dict[str, Any] = state_event if state_event and state_event["kind"] == "end" else {}
    reason, cause, action = over.get("reason"), over.get("cause"), over.get("action")
    if state == "lost" and not cause:
        reason, cause, action = diagnose_lost(run.log, state_event is None)
    saved = (run.result / "manifest.json").is_file()
    return {
        "id": run.id,
        "state": state,
        "cause": cause,
        "action": action,
        "reason": reason,
        **_ordered(run),
        **told,
        "seconds": _seconds(spans, state),
        "created": told["created"] or run.folder.stat().st_mtime,
        "trained": over.get("state") == "finished" or saved,
        "saved": saved,
        "hold": bool(waiting.get("hold")),
        "result": str(run.result) if saved else None,
    }


def _told_now(diary: Path) -> dict[str, Any]:
    try:
        status = diary.stat()
    except FileNotFoundError:
        return _told(diary, 0, 0, 0)
    return _told(diary, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(
    maxsize=1024
)  # a diary only grows: the same size and time mean the same lines, and an ended run is read once
def _told(path: Path, inode: int, size: int, changed: int) -> dict[str, Any]:
    """Do not change the answer: it is shared."""
    return _told_by(events.read(path)[0])


def _told_by(everything: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields that come from the diary alone."""
    diary = current_events(everything)
    steps = [event for event in diary if event["kind"] == "step"]
    evals = [event for event in diary if event["kind"] == "eval" and event.get("loss") is not None]
    saved = [event for event in diary if event["kind"] == "saved"]
    plan = events.latest(diary, "plan")
    last: dict[str, Any] = steps[-1] if steps else {}
    memory = [event.get("memory") or event.get("peak_memory") for event in diary if event["kind"] in ("step", "end")]
    return {
        "phase": phase(diary),
        "attempt": max((event.get("attempt") or 0 for event in diary), default=0),
        "step": last.get("step", 0),
        "steps": plan.get("steps"),
        "epoch": last.get("epoch"),
        "epochs": plan.get("epochs"),
        "train_loss": last.get("loss"),
        "eval_loss": evals[-1]["loss"] if evals else None,
        "eval_loss_before": next((event["loss"] for event in evals if event["step"] == 0), None),
        "best_eval_loss": min((event["loss"] for event in evals), default=None),
        "learning_rate": last.get("learning_rate"),
        "tokens_per_second": _speed(steps),
        "peak_memory": max((value for value in memory if value), default=None),
        "memories": last.get("memories"),  # of every process, where there are several
        "estimated_memory": plan.get("estimated_memory"),
        "trainable": plan.get("trainable"),
        "parameters": plan.get("parameters"),
        "exported": [event.get("path") for event in saved if event.get("what") == "export"],
        "uploaded": [event.get("path") for event in saved if event.get("what") == "upload"],
        "created": everything[0]["at"] if everything else None,
        "spans": _spans(everything),
    }


def _ordered(run: Run) -> dict[str, Any]:
    """Name, model, method and data as ordered, and what its owner wrote on it."""
    label = run.label()
    files = (run.folder / "config.yaml", run.folder / "changes.json")
    told = _order(run.folder, type(run), tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files))
    return {
        **told,
        "name": label.get("name") or told["name"],
        "note": label.get("note", ""),
        "star": bool(label.get("star")),
    }


@lru_cache(maxsize=1024)
def _order(folder: Path, kind: type[Run], changed: tuple[int, ...]) -> dict[str, Any]:
    """The order's part of the summary, read once for each change of its files."""
    plain = re.sub(r"^\d{4}-\d\d-\d\d-\d{4}-", "", folder.name)
    try:
        run = kind(folder)
        config = run.config
    except (OrderError, RunError):
        return {"name": plain, "model": None, "method": None, "data": None, "combined": None, "edited": []}
    data = ", ".join(dict.fromkeys(item.source for section, _ in config.data_sections() for item in section.sources()))
    combined = config.combine.model_dump(mode="json", exclude={"held_out"}) if config.combine else None
    return {
        "name": config.name or plain,
        "model": config.model.source,
        "method": config.method.name,
        "data": data,
        "combined": combined,
        "edited": run.edited(),
    }


def _speed(steps: list[dict[str, Any]]) -> float | None:
    """Tokens per second over the last ten points."""
    speeds = [event["tokens_per_second"] for event in steps[-10:] if event.get("tokens_per_second")]
    return round(sum(speeds) / len(speeds), 1) if speeds else None


def _spans(diary: list[dict[str, Any]]) -> tuple[tuple[float, dict[str, Any], bool], ...]:
    """(seconds to its last sign of life, that sign, whether it ended) of each attempt."""
    spans: list[list[Any]] = []
    for event in diary:
        if event["kind"] == "phase" and event["name"] == "starting":
            spans.append([0.0, event, False])
        elif spans and not spans[-1][2] and not (event["kind"] == "phase" and event["name"] == "queued"):
            lost = event["kind"] == "end" and event["state"] == "lost"  # written by whoever noticed, maybe days later
            if not lost:
                spans[-1][:2] = [spans[-1][0] + events.seconds(spans[-1][1], event), event]
            spans[-1][2] = event["kind"] == "end"
    return tuple((took, last, ended) for took, last, ended in spans)


def _seconds(spans: tuple[tuple[float, dict[str, Any], bool], ...], state: str) -> float:
    """Seconds of work over all attempts: from each start to its end, or to the last sign of life; to now while it lives."""
    total = sum(took for took, _, _ in spans)
    if spans and state in ALIVE and not spans[-1][2]:
        total += events.seconds(spans[-1][1])
    return round(total, 1)
