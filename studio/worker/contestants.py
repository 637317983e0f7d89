"""The settings of a race (worker/race.py): each with its run's folder, its order, its row of the table and its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import data, race
from studio.config import RunConfig
from studio.device import devices
from studio.errors import DataError
from studio.events import latest, seconds
from studio.home import write_atomic
from studio.memory.peak import grown
from studio.model import ModelFacts
from studio.resolve import Resolved, resolve
from studio.run import Run
from studio.runs import checkpoints, sequence
from studio.tokens import Encoder
from studio.worker.context import RunContext
from studio.worker.report import Report


@dataclass
class Contestant:
    """One setting: its run's folder, its order and row of the table, and what training it needs."""

    number: int
    run: Run
    config: RunConfig
    row: dict[str, Any]
    encoder: Encoder
    rows: data.Prepared
    resolved: Resolved
    tuned: Any = None

    @property
    def races(self) -> bool:
        """Whether it still takes turns, or has taken all."""
        return self.row["state"] not in race.STOPPED_STATES

    def steps_at(self, share: float) -> int:
        return max(1, math.ceil(self.resolved.steps * share))

    def context(self, folder: Path, report: Report) -> RunContext:
        return RunContext(self.run, self.config, folder, self.encoder, self.rows, report)

    def read(self, step: int) -> None:
        """Update the row of the table from the setting's events up to `step`."""
        events = self.run.events()
        evals = [event for event in events if event["kind"] == "eval" and event["step"] <= step]
        evals = [event for event in evals if event["loss"] is not None]
        self.row |= {
            "step": step,
            "eval_loss_before": next((event["loss"] for event in evals if event["step"] == 0), None),
            "eval_loss": evals[-1]["loss"] if evals else None,
            "train_loss": latest(events, "step").get("loss"),
            "train_seconds": training_seconds(events),
        }


def prepare(race_run: Run, folder: Path, facts: ModelFacts) -> list[Contestant]:
    """All settings of a race, as far as earlier attempts have come. folder, facts: of the base.

    Raises OrderError, and DataError where nothing is held out to tell settings apart by.
    """
    config, device = race_run.config, devices()[0]
    rows_by_number = {row["contestant"]: row for row in race.table(race_run)}
    prepared: dict[Any, tuple[Encoder, data.Prepared]] = {}
    contestants = []
    for number, (order, label) in enumerate(race.named_orders(config), 1):
        order.method.refuse(facts, order.training, device)
        key = (order.data.model_dump_json(), order.virtual_tokens)
        if key not in prepared:
            encoder = Encoder.from_order(order.data, folder, num_virtual_tokens=order.virtual_tokens)
            prepared[key] = encoder, data.prepare(order.data, encoder, order.training.seed)
        encoder, rows = prepared[key]
        if not len(rows.eval):
            raise DataError("No row is held out to measure on.", "Give more rows, or data.eval.", "data.eval")
        row = rows_by_number.get(number) or race.new_row(number, order, label)
        resolved = resolve(order, grown(facts, order), device, rows.statistics)
        row |= {"steps": resolved.steps, "estimated_memory": resolved.estimated, "parameters": facts.parameters}
        entry = Contestant(number, _begin(race_run, number, order), order, row, encoder, rows, resolved)
        if row["state"] in ("waiting", "racing", "stopped"):
            checkpoint = checkpoints.newest(entry.run.checkpoints)
            row["state"] = "racing" if checkpoint else "waiting"
            entry.read(checkpoints.step_of(checkpoint))
        contestants.append(entry)
    return contestants


def _begin(race_run: Run, number: int, order: RunConfig) -> Run:
    """The setting's folder, tidied where an earlier attempt was cut off."""
    part = race.contestant(race_run, number)
    if not race.begun(part.folder):
        part.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(part.folder / "config.yaml", order.with_absolute_paths().to_yaml())
    checkpoints.tidy(part.checkpoints)
    sequence.begin(part.checkpoints, order)
    return part


def training_seconds(events: list[dict[str, Any]]) -> float:
    """Seconds in the phase training, over all turns."""
    total, began = 0.0, None
    for event in events:
        if began is not None and event.get("name") != "starting":  # between two turns others train
            total += seconds(began, event)
        if event["kind"] == "phase":
            began = event if event["name"] == "training" else None
        elif began is not None:
            began = None if event["kind"] == "end" else event
    return round(total, 2)
