"""Changes of a run's length: more epochs, or an end at its newest checkpoint."""

from __future__ import annotations

from typing import Any

from studio import events, queue
from studio.errors import RunError
from studio.run import ALIVE, Run
from studio.runs import checkpoints


def finish(run: Run) -> None:
    """Make an ended run's newest checkpoint its result, without another step. Raises RunError without one."""
    newest = checkpoints.newest(run.checkpoints)
    if newest is None or run.has_result():
        message = f"{run.id} has no whole checkpoint." if newest is None else f"{run.id} has a model already."
        hint = "Resume it: it starts again." if newest is None else "Chat with it, or resume the run to train further."
        raise RunError(message, hint, "run")
    step = checkpoints.step_of(newest)
    queue.resume(run, {"training": {"max_steps": step}}, f"finished at step {step}")


def extend(run: Run, epochs: float) -> None:
    """Train for some more epochs: at once if the run has ended, else after its end. Recorded in changes.json."""
    training, plan = run.config.training, run.plan()
    if epochs <= 0:
        raise RunError(f"A run cannot be extended by {epochs:g} epochs.", "Give a number above 0.", "epochs")
    longer: dict[str, Any] = {"epochs": training.epochs + epochs}
    if training.max_steps:
        last = events.last(run.events_file, ("step",)) or {}
        steps_per_epoch = last["step"] / last["epoch"] if last.get("epoch") else training.max_steps / training.epochs
        longer = {"max_steps": training.max_steps + max(1, round(steps_per_epoch * epochs))}
    if training.accumulation == "auto" and plan.get("effective_batch"):
        longer["accumulation"] = max(1, plan["effective_batch"] // training.batch_size)  # auto depends on the length
    why = f"extended by {epochs:g} epochs"
    if run.state() in ("queued", *ALIVE):
        run.change(why, training=longer)
    else:
        queue.resume(run, {"training": longer}, why)
