"""The state of a run, as its lock, its events and its stop file say."""

from __future__ import annotations

from typing import Any

from studio.events import latest

STATES = ("queued", "starting", "running", "stopping", "finished", "stopped", "failed", "lost")
ALIVE = ("starting", "running", "stopping")
WORKING = ("training", "evaluating", "saving", "reconnecting")  # phases after the first step
STATE_EVENTS = ("phase", "end")  # kinds of event that determine the state


def derive_state(alive: bool, state_event: dict[str, Any] | None, stop: bool) -> str:
    """One of STATES.

    alive: whether the lock was held, asked before the events were read; state_event: the last phase or end event; stop:
    whether the stop file exists. A run whose lock is held has not ended, even after its end event: its processes still
    hold memory.
    """
    event = state_event or {"kind": "phase", "name": "queued"}
    ended = event["kind"] == "end"
    if alive and stop:
        return "stopping"
    if alive:
        return "running" if ended or event["name"] in WORKING else "starting"
    if ended:
        return event["state"]
    return "queued" if event["name"] == "queued" else "lost"


def current_events(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events without those superseded by a resume: steps after the checkpoint it continued from."""
    remaining: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "phase" and event.get("from_step") is not None:
            remaining = [
                earlier for earlier in remaining if earlier.get("step") is None or earlier["step"] <= event["from_step"]
            ]
        remaining.append(event)
    return remaining


def phase(events: list[dict[str, Any]]) -> str | None:
    return latest(events, "phase").get("name")
