"""A run's summary, derived from its events: the fields shown by `runs`, `show` and the page's table. Read only."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import general
from studio.errors import OrderError, RunError
from studio.events import latest, perplexity, read, seconds
from studio.runs.diagnosis import diagnose_lost
from studio.runs.folder import Run
from studio.runs.state import ALIVE, STATE_EVENTS, current_events, derive_state, phase


def summary(run: Run, events: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The run's settings, state and figures; unknown values are None. Bytes and seconds.

    events: if already read, in order; steps in the middle may be missing. Since they were read before the lock is
    checked here, a run that ends in between looks lost: such a caller reads the new events and asks again.
    """
    alive = run.alive()  # before the events are read, so that an end event written in between is read
    state_event = run.state_event() if events is None else latest(events, *STATE_EVENTS) or None
    fields = dict(_fields_of_file(run.events_file) if events is None else _fields_of_events(events))
    spans = fields.pop("spans")
    state = derive_state(alive, state_event or run.implied_state_event(), run.stop_file.exists())
    waiting = state_event if state == "queued" and state_event else {}
    end_event: dict[str, Any] = state_event if state_event and state_event["kind"] == "end" else {}
    reason, cause, action = end_event.get("reason"), end_event.get("cause"), end_event.get("action")
    if state == "lost" and not cause:
        reason, cause, action = diagnose_lost(run.log, state_event is None)
    saved = run.has_result()
    return {
        "id": run.id,
        "state": state,
        "cause": cause,
        "action": action,
        "reason": reason,
        **_order_fields(run),
        **fields,
        "seconds": _seconds(spans, state),
        "created": fields["created"] or run.folder.stat().st_mtime,
        "trained": end_event.get("state") == "finished" or saved,
        "saved": saved,
        "hold": bool(waiting.get("hold")),
        "result": str(run.result) if saved else None,
    }


def _fields_of_file(events: Path) -> dict[str, Any]:
    try:
        status = events.stat()
    except FileNotFoundError:
        return _cached_fields(events, 0, 0, 0)
    return _cached_fields(events, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)  # the file only grows: the same size and time mean the same events
def _cached_fields(path: Path, inode: int, size: int, changed: int) -> dict[str, Any]:
    """Shared by all callers: do not modify it."""
    return _fields_of_events(read(path)[0])


def _fields_of_events(all_events: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields that depend on the events only."""
    events = current_events(all_events)
    steps = [event for event in events if event["kind"] == "step"]
    evals = [event for event in events if event["kind"] == "eval" and event.get("loss") is not None]
    saved = [event for event in events if event["kind"] == "saved"]
    forgetting = [event for event in events if event["kind"] == "forgetting"]
    plan = latest(events, "plan")
    last: dict[str, Any] = steps[-1] if steps else {}
    compared = [event["preference"] for event in evals if event.get("preference")]
    memory = [event.get("memory") or event.get("peak_memory") for event in events if event["kind"] in ("step", "end")]
    return {
        "phase": phase(events),
        "attempt": max((event.get("attempt") or 0 for event in events), default=0),
        "step": last.get("step", 0),
        "steps": plan.get("steps"),
        "epoch": last.get("epoch"),
        "epochs": plan.get("epochs"),
        "train_loss": last.get("loss"),
        "eval_loss": evals[-1]["loss"] if evals else None,
        "eval_loss_before": next((event["loss"] for event in evals if event["step"] == 0), None),
        "best_eval_loss": min((event["loss"] for event in evals), default=None),
        **_held_out_fields([] if compared else evals),
        "reward": (last.get("preference") or {}).get("reward"),
        "preference": compared[-1] if compared else None,
        "preference_before": compared[0] if compared and evals[0]["step"] == 0 else None,
        "forgetting": general.last(forgetting),
        "learning_rate": last.get("learning_rate"),
        "tokens_per_second": _speed(steps),
        "peak_memory": max((value for value in memory if value), default=None),
        "memories": last.get("memories"),  # of each process, if there are several
        "estimated_memory": plan.get("estimated_memory"),
        "trainable": plan.get("trainable"),
        "parameters": plan.get("parameters"),
        "exported": [event.get("path") for event in saved if event.get("what") == "export"],
        "uploaded": [event.get("path") for event in saved if event.get("what") == "upload"],
        "created": all_events[0]["at"] if all_events else None,
        "spans": _spans(all_events),
    }


def _held_out_fields(evals: list[dict[str, Any]]) -> dict[str, Any]:
    """Perplexity and token accuracy before the first step and at the last evaluation."""
    ends = {"_before": next((event for event in evals if event["step"] == 0), None), "": evals[-1] if evals else None}
    fields: dict[str, Any] = {}
    for name, event in ends.items():
        fields[f"eval_perplexity{name}"] = perplexity(event) if event else None
        fields[f"eval_accuracy{name}"] = event.get("accuracy") if event else None
    return fields


def _order_fields(run: Run) -> dict[str, Any]:
    """Name, model, method and data of the order, and the run's label."""
    label = run.label()
    files = (run.folder / "config.yaml", run.folder / "changes.json")
    fields = _cached_order_fields(run.folder, tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files))
    return {
        **fields,
        "name": label.get("name") or fields["name"],
        "note": label.get("note", ""),
        "star": bool(label.get("star")),
    }


@lru_cache(maxsize=1024)
def _cached_order_fields(folder: Path, changed: tuple[int, ...]) -> dict[str, Any]:
    """The order's part of the summary, read again only when its files change."""
    default_name = re.sub(r"^\d{4}-\d\d-\d\d-\d{4}-", "", folder.name)
    try:
        run = Run(folder)
        config = run.config
    except (OrderError, RunError):
        unknown = dict.fromkeys(("model", "method", "stage", "data", "combined", "race"))
        return {"name": default_name, **unknown, "edited": []}
    data = ", ".join(dict.fromkeys(item.source for section, _ in config.data_sections() for item in section.sources()))
    combined = config.combine.model_dump(mode="json", exclude={"held_out"}) if config.combine else None
    return {
        "name": config.name or default_name,
        "model": config.model.source,
        "method": config.method.name,
        "stage": config.stage.name,
        "data": data,
        "combined": combined,
        "race": {"settings": len(config.race.settings), "plan": bool(config.race.plan)} if config.race else None,
        "edited": run.edited(),
    }


def _speed(steps: list[dict[str, Any]]) -> float | None:
    """Mean tokens per second over the last ten step events."""
    speeds = [event["tokens_per_second"] for event in steps[-10:] if event.get("tokens_per_second")]
    return round(sum(speeds) / len(speeds), 1) if speeds else None


def _spans(events: list[dict[str, Any]]) -> tuple[tuple[float, dict[str, Any], bool], ...]:
    """(seconds until its last event, that event, whether it has ended) of each attempt."""
    spans: list[list[Any]] = []
    for event in events:
        queued = event["kind"] == "phase" and event["name"] == "queued"
        # a trainer that runs by itself, without a supervisor, writes no "starting"
        if event["kind"] == "phase" and event["name"] == "starting" or not spans and not queued:
            spans.append([0.0, event, event["kind"] == "end"])
        elif spans and not spans[-1][2] and not queued:
            lost = event["kind"] == "end" and event["state"] == "lost"  # written when noticed, maybe days later
            if not lost:
                spans[-1][:2] = [spans[-1][0] + seconds(spans[-1][1], event), event]
            spans[-1][2] = event["kind"] == "end"
    return tuple((took, last, ended) for took, last, ended in spans)


def _seconds(spans: tuple[tuple[float, dict[str, Any], bool], ...], state: str) -> float:
    """Seconds of work of all attempts, each from its start to its end or last event; to now while the run is alive."""
    total = sum(took for took, _, _ in spans)
    if spans and state in ALIVE and not spans[-1][2]:
        total += seconds(spans[-1][1])
    return round(total, 1)
