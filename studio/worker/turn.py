"""A setting's turn in a race (worker/race.py): what it trains with, its report, and what is put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from studio.run import Run
from studio.worker.contestants import Contestant
from studio.worker.report import Report


class Race(Protocol):
    """What a turn needs of its race."""

    run: Run
    report: Report

    def count(self, one: Contestant, step: dict[str, Any]) -> None: ...

    def is_time_over(self) -> bool: ...


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
