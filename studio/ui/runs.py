"""The Runs tab: the jobs that change runs. What the tab shows comes from live.py."""

from __future__ import annotations

from typing import Any

from studio import combining, preflight, queue, run
from studio.errors import RunError
from studio.forecast import remedies
from studio.runs import goal, remote
from studio.ui import live, rights

LABELS = {"name": str, "note": str, "star": bool}
MAX_NOTE_CHARS = 2000  # characters of a note


@rights.job(waits=True)
def combine(
    names: list[str], weights: list[float], how: str, density: float | None = None, name: str = ""
) -> dict[str, Any]:
    """Make one adapter of those of several runs, in a run of its own (studio/combining.py). Returns {run, state}."""
    if not isinstance(names, list) or not isinstance(weights, list) or not isinstance(name, str) or len(name) > 120:
        hint = "Give the runs' ids, a weight for each, and a name of at most 120 characters."
        raise RunError("That is no combination.", hint, "names")
    parents = [live.get_run(str(parent)) for parent in names]
    order = combining.order(parents, weights, how, density, name.strip() or None)
    return live.changed(queue.submit(order))


@rights.job()
def resume(name: str) -> dict[str, Any]:
    """Queue a run again; it goes on from its newest complete checkpoint. Returns {run, state}."""
    chosen = run.find(name)
    queue.resume(chosen)
    return live.changed(chosen)


@rights.job()
def pause(name: str) -> dict[str, Any]:
    """Stop a run, keep its checkpoint, and let it wait in the queue until it is resumed. Returns {run, state}."""
    chosen = run.find(name)
    queue.pause(chosen)
    return live.changed(chosen)


@rights.job()
def ask(name: str, what: str) -> dict[str, Any]:
    """Ask a living run to save, evaluate or sample after its present step. Returns {run, state}."""
    chosen = run.find(name)
    chosen.ask(what)
    return live.changed(chosen)


@rights.job()
def finish(name: str) -> dict[str, Any]:
    """Make the model of a run's newest checkpoint its result, without another step. Returns {run, state}."""
    chosen = run.find(name)
    goal.finish(chosen)
    return live.changed(chosen)


@rights.job()
def extend(name: str, epochs: float) -> dict[str, Any]:
    """Let a run go on for some epochs more. Returns {run, state}."""
    chosen = run.find(name)
    if not isinstance(epochs, (int, float)) or not 0 < epochs <= 1000:
        hint = "Give a number above 0, at most 1000."
        raise RunError(f"A run cannot be extended by {epochs!r} epochs.", hint, "epochs")
    goal.extend(chosen, float(epochs))
    return live.changed(chosen)


@rights.job()
def repair_run(name: str, change: dict[str, Any]) -> dict[str, Any]:
    """Apply a change offered after a failure: resume if the checkpoint allows it, else anew. Returns {run, state}."""
    chosen = run.find(name)
    offered = next((item for item in remedies.repairs(chosen) if item["change"] == change), None)
    if offered is None:
        raise RunError("That change was not offered for this run.", "Choose one of those on its page.", "change")
    if offered["resumes"]:
        queue.resume(chosen, change, why=f"after a failure: {offered['text']}")
        return live.changed(chosen)
    run_config = chosen.config.with_changes(**change)
    preflight.check(run_config)
    return live.changed(queue.submit(run_config))


@rights.job()
def label(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Write on a run: {name?, note?, star?}. Returns {run, state}."""
    chosen = run.find(name)
    for key, value in values.items():
        if (
            key not in LABELS
            or not isinstance(value, LABELS[key])
            or (isinstance(value, str) and len(value) > MAX_NOTE_CHARS)
        ):
            hint = f"Give name or note (at most {MAX_NOTE_CHARS} characters), or star (true or false)."
            raise RunError(f"{key!r} cannot be written on a run as {str(value)[:80]!r}.", hint, key)
    chosen.label(**values)
    return live.changed(chosen)


@rights.job()
def move(name: str, place: int) -> dict[str, Any]:
    """Put a waiting run at a place in the queue; 1 is next. Returns {run, state}."""
    chosen = run.find(name)
    queue.move(chosen, int(place))
    return live.changed(chosen)


@rights.job()
def delete(name: str) -> dict[str, Any]:
    """Remove a run that is not alive, also elsewhere. Returns {run, bytes, note (what stays elsewhere)}."""
    chosen = live.get_run(name)
    left = "" if chosen.alive() else remote.remove(chosen)
    freed = run.delete(chosen)
    live.listing.invalidate()
    return {"run": chosen.id, "bytes": freed, "note": left}
