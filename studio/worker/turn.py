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
from studio.talk import base_record
from studio.worker import base_model, keep_general, loss_check, probe, train
from studio.worker.contestants import Contestant, step_of
from studio.worker.loaded import share_weights
from studio.worker.report import Report

NEVER = 10**9  # steps: a turn evaluates and saves at its end


class Race(Protocol):
    """What a turn needs of its race."""

    run: Run
    report: Report
    folder: Path
    braked: dict[Any, keep_general.Answers]

    def count(self, one: Contestant, step: dict[str, Any]) -> None: ...

    def is_time_over(self) -> bool: ...

    def rows_of(self, one: Contestant) -> data.Prepared: ...


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


def train_turn(race_run: Race, one: Contestant, report: TurnReport, base: Any, shared: bool) -> Any:
    """One turn: as train.train, from the wrapped model on. Returns the trainer."""
    config, checkpoint = one.config, checkpoints.newest(one.run.checkpoints)
    first = one.tuned is None
    if first:
        one.tuned = _wrap(one, base, shared)
    resolved = one.resolved._replace(eval_every=NEVER, save_every=NEVER) if shared else one.resolved
    rows = race_run.rows_of(one)
    trainer = train.make_trainer(one.run, config, resolved, one.tuned, rows, report, resumes=bool(checkpoint))
    if first:
        checked = loss_check.check_loss(trainer, one.resolved)
        one.resolved = checked
        one.row["trainable"] = sum(weight.numel() for weight in trained_weights(one.tuned).values())
        one.row["share"] = round(100 * one.row["trainable"] / one.row["parameters"], 4)
        report.emit(
            "plan",
            parameters=one.row["parameters"],
            **base_record.of(race_run.folder),
            **train.plan_fields(config, race_run.folder, one.resolved, one.tuned, one.rows),
        )
        if not checkpoint:
            config.method.initialize(one.tuned, trainer.first_inputs)
        if one.resolved.probe:
            trainer.add_callback(probe.MemoryProbe(trainer))
    brake = config.training.keep_general, config.training.keep_general_by
    trainer.brake = keep_general.start(trainer, one.encoder, *brake, race_run.braked)
    report.phase("training", from_step=step_of(checkpoint))
    with forward_restored(one.tuned):
        trainer.train_from(checkpoint, one.resolved.steps)
    return trainer


def _wrap(one: Contestant, base: Any, shared: bool) -> Any:
    """The setting's model: modules of its own around the group's weights, with its own attention."""
    if shared:
        base = share_weights(base)
        kernel = base_model.attention_kernel(one.config, one.resolved) or "sdpa"
        if base.config._attn_implementation not in (kernel, "eager") and base._can_set_attn_implementation():
            base.set_attn_implementation(kernel)
    if base.config._attn_implementation == "eager":
        one.resolved = one.resolved._replace(attention="eager")
    return base_model.wrap_base(one.config, one.resolved, base)
