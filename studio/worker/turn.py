"""A setting's turn in a race (worker/race.py): what it trains with, its report, and what is put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from studio import data
from studio.method import trained_weights
from studio.run import Run
from studio.runs import checkpoints
from studio.worker import base_model, keep_general, loss_check, probe, train
from studio.worker.contestants import Contestant
from studio.worker.loaded import share_weights
from studio.worker.make_trainer import make_trainer
from studio.worker.report import Report

NEVER = 10**9  # steps: a turn evaluates and saves at its end


class Race(Protocol):
    """What a turn needs of its race."""

    run: Run
    report: Report
    folder: Path
    braked: dict[Any, keep_general.Answers]

    def count(self, entry: Contestant, step: dict[str, Any]) -> None: ...

    def is_time_over(self) -> bool: ...

    def rows_of(self, entry: Contestant) -> data.Prepared: ...


class TurnReport(Report):
    """The report of one turn: events go into the setting's folder, steps and phases into the race's too; a stop is
    asked for in the race's folder. upto: the step at which the turn ends, with an evaluation and a checkpoint.
    """

    def __init__(self, race_run: Race, contestant: Contestant, upto: int):
        super().__init__(contestant.run, race_run.report.attempt)
        self.race_run, self.contestant, self.upto = race_run, contestant, upto
        self.precision = contestant.resolved.dtype

    def emit(self, kind: str, **fields: Any) -> None:
        super().emit(kind, **fields)
        if kind == "step":
            self.race_run.count(self.contestant, fields)
        if kind == "phase" and fields["name"] != "starting":
            self.race_run.report.emit("phase", name=fields["name"], detail=self.contestant.row["label"])

    def stop_request(self) -> str | None:
        return self.race_run.run.stop_request()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        control = super().on_step_end(args, state, control, **more)
        if self.stopping is None and (state.global_step >= self.upto or self.race_run.is_time_over()):
            control.should_training_stop = control.should_save = True
            control.should_evaluate = self.trainer.eval_dataset is not None
        return control


@contextmanager
def forward_restored(model: Any) -> Iterator[None]:
    """Take off what accelerate puts around a model's forward, and its mark that it did: each turn has an accelerator of
    its own, which leaves a marked model without autocast.
    """
    before = vars(model).get("forward")
    try:
        yield
    finally:
        vars(model).pop("forward", None)
        vars(model).pop("_is_accelerate_prepared", None)
        if before is not None:
            model.forward = before


def train_turn(race_run: Race, entry: Contestant, report: TurnReport, base: Any, shared: bool) -> Any:
    """One turn: as train.train, from the wrapped model on. Returns the trainer."""
    config, checkpoint = entry.config, checkpoints.newest(entry.run.checkpoints)
    first = entry.tuned is None
    if first:
        entry.tuned = _wrap(entry, base, shared)
    resolved = entry.resolved._replace(eval_every=NEVER, save_every=NEVER) if shared else entry.resolved
    context = entry.context(race_run.folder, report)
    measured = context._replace(rows=race_run.rows_of(entry))
    trainer = make_trainer(measured, resolved, entry.tuned, resumes=bool(checkpoint))
    if first:
        entry.resolved = loss_check.check_loss(trainer, entry.resolved)
        entry.row["trainable"] = sum(weight.numel() for weight in trained_weights(entry.tuned).values())
        entry.row["share"] = round(100 * entry.row["trainable"] / entry.row["parameters"], 4)
        train.emit_plan(context, entry.resolved, entry.tuned, entry.row["parameters"])
        if not checkpoint:
            config.method.initialize(entry.tuned, trainer.first_inputs)
        if entry.resolved.probe:
            trainer.add_callback(probe.MemoryProbe(trainer))
    brake = config.training.keep_general, config.training.keep_general_by
    trainer.brake = keep_general.start(trainer, entry.encoder, *brake, race_run.braked)
    report.phase("training", from_step=checkpoints.step_of(checkpoint))
    with forward_restored(entry.tuned):
        trainer.train_from(checkpoint, entry.resolved.steps)
    return trainer


def _wrap(entry: Contestant, base: Any, shared: bool) -> Any:
    """The setting's model: modules of its own around the group's weights, with its own attention."""
    if shared:
        base = share_weights(base)
        kernel = base_model.attention_kernel(entry.config, entry.resolved) or "sdpa"
        if base.config._attn_implementation not in (kernel, "eager") and base._can_set_attn_implementation():
            base.set_attn_implementation(kernel)
    if base.config._attn_implementation == "eager":
        entry.resolved = entry.resolved._replace(attention="eager")
    return base_model.wrap_base(entry.config, entry.resolved, base)
