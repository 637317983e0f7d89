"""python -m studio.worker.plan RUN-FOLDER: short runs on shares of the rows, against examples in the base's prompt."""

from __future__ import annotations

import copy
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio import data, plan, queue
from studio.contest import FOLDER
from studio.data.splitting import shuffled
from studio.errors import StudioError
from studio.run import Run
from studio.worker.contestants import Contestant
from studio.worker.loss import context_length, loss
from studio.worker.packing import Layout, Row, count_target_tokens, model_inputs
from studio.worker.race import RaceRun
from studio.worker.report import Report

LONGEST = 2048  # tokens of a prompt with examples, where the model reads so many
TRIED = 200  # training rows that examples are drawn from
Conversation = dict[str, Any]


def main(run: Run) -> int:
    """Exit code 0: the end event says finished or stopped; 1: it says failed, and why."""
    report = Report(run)
    return report.run_to_exit_code(lambda: PlanRun(run, report).run_race())


class PlanRun(RaceRun):
    """A race over shares of the rows that also measures the held-out answers row by row."""

    def __init__(self, run: Run, report: Report):
        super().__init__(run, report)
        self.turns = plan.TURNS
        self.deadline = time.monotonic() + 60 * self.contest.plan.minutes
        self.best: dict[int, plan.Losses] = {}  # of each contestant's turns
        self.base: dict[str, plan.Losses | None] = {}
        self.swapped_tuned: plan.Losses | None = None
        self.held_out: list[Conversation] = []
        self.swapped: list[Conversation] | None = None

    def prepare(self) -> None:
        """A look that was cut off begins anew: what it measured row by row is gone."""
        shutil.rmtree(self.run.folder / FOLDER, ignore_errors=True)
        super().prepare()

    def is_time_over(self) -> bool:
        return time.monotonic() > self.deadline

    def group_begins(self, base: Any, group: list[Contestant]) -> None:
        """Measure the untouched base, without and with examples."""
        if self.base:
            return
        full = self.contestants[-1]
        self.held_out = data.held_out(full.config.data, full.encoder, full.config.training.seed)
        self.swapped = swapped_answers(self.held_out)
        self.report.phase("evaluating", detail="the base")
        shots = self._examples(full)
        for name, rows in (("zero", self.held_out), ("few", self.held_out if shots else None)):
            self.base[name] = self._losses(base, full, rows, shots if name == "few" else [])
        better = shots if self.base["few"] and self.base["few"].mean < self.base["zero"].mean else []
        self.base["swapped"] = self._losses(base, full, self.swapped, better)

    def rows_of(self, entry: Contestant) -> data.Prepared:
        """The run's rows without the held-out ones, which turn_ended measures one by one."""
        return replace(entry.rows, eval=())

    def turn_ended(self, entry: Contestant, step: int) -> None:
        """Measure the held-out answers; the best of a run's turns counts, as early stopping would take it."""
        if self.stopping:
            return
        self.report.phase("evaluating", detail=entry.row["label"])
        losses = self._losses(entry.tuned, entry, self.held_out)
        if entry.number not in self.best:
            entry.run.append("eval", step=0, loss=self.base["zero"].mean, attempt=self.report.attempt)
        entry.run.append("eval", step=step, loss=losses.mean, attempt=self.report.attempt)
        if entry.number not in self.best or losses.mean < self.best[entry.number].mean:
            self.best[entry.number] = losses
            if entry is self.contestants[-1]:
                self.swapped_tuned = self._losses(entry.tuned, entry, self.swapped)

    def _examples(self, entry: Contestant) -> list[Conversation]:
        """Training rows with question and answer, as many as ordered; fewer where the prompts would be too long."""
        order = entry.config.data
        rows = data.trained_on(order, entry.config.training.seed, TRIED)
        rows = [rows[number] for number in shuffled(len(rows), entry.config.training.seed, 0)]
        shots = [row for row in rows if _is_answered(row)][: self.contest.plan.shots]
        if not all(_is_answered(row) for row in self.held_out):
            return []
        limit = min(LONGEST, entry.encoder.context_length or LONGEST)
        while shots and max(len(row["input_ids"]) for row in self._encoded(entry, self.held_out, shots)) > limit:
            shots = shots[:-1]
        return shots

    def _encoded(
        self, entry: Contestant, rows: Sequence[Conversation], shots: Sequence[Conversation] = ()
    ) -> list[Row]:
        """Rows in tokens, of which only the last answer counts; plain texts whole."""
        encoder = copy.copy(entry.encoder)
        if all(_is_answered(row) for row in rows):
            encoder.train_on = "last"
        if shots:
            encoder.max_length = None
            rows = [with_examples(row, shots) for row in rows]
        return [{"input_ids": row.ids, "labels": row.labels} for row in encoder.encode_batch(rows)]

    def _losses(
        self, model: Any, entry: Contestant, rows: Sequence[Conversation] | None, shots: Sequence[Conversation] = ()
    ) -> plan.Losses | None:
        if rows is None:
            return None
        resolved, device = entry.resolved, next(model.parameters()).device
        dtype, sums, counts = getattr(torch, resolved.dtype), [], []
        autocast = torch.autocast(device.type, dtype, enabled=resolved.autocast is not None)
        layout = Layout.of(resolved, context_length(model, entry.config.virtual_tokens))
        training = model.training
        model.eval()
        for row in self._encoded(entry, rows, shots):
            if self.run.stop_request():
                self.stopping = self.run.stop_request()
            inputs = model_inputs(layout.collate([row]), device)
            with torch.no_grad(), autocast:
                sums.append(float(loss(model, inputs, resolved.loss, dtype)))
            counts.append(max(1, count_target_tokens(row)))
        model.train(training)
        return plan.Losses(np.array(sums), np.array(counts, float))

    def ending(self) -> dict[str, Any]:
        """The answer for the end event; the runs become ordinary ones of the history."""
        measured = [entry for entry in self.contestants if entry.number in self.best]
        conclusion = None
        if self.stopping is None and len(measured) < len(self.contestants):
            failed = next((entry.row["cause"] for entry in self.contestants if entry.row["cause"]), None)
            raise StudioError(failed or "The time was over before every run had begun.", "Give it more minutes.")
        if self.stopping is None:
            batch = measured[0].resolved.effective
            curve = [
                plan.Point(min(len(entry.rows.train), entry.row["step"] * batch), self.best[entry.number])
                for entry in measured
            ]
            conclusion = plan.conclude(
                plan.Figures(self.base["zero"], self.base["few"], curve, self.base["swapped"], self.swapped_tuned)
            )
        runs = []
        for entry in self.contestants if self.stopping != "discard" else ():
            if entry.row["step"]:
                runs.append(queue.adopt(entry.config, entry.run.folder).id)
        shutil.rmtree(self.run.folder / FOLDER, ignore_errors=True)
        return {"plan": {**conclusion, "runs": runs} if conclusion else None, "runs": runs}


def with_examples(row: Conversation, shots: Sequence[Conversation]) -> Conversation:
    """A conversation with the turns of `shots` inserted between its system message and its own turns."""
    messages = row["messages"]
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = [message for shot in shots for message in shot["messages"] if message["role"] != "system"]
    return {**row, "messages": [*system, *turns, *messages[len(system) :]]}


def swapped_answers(rows: Sequence[Conversation]) -> list[Conversation] | None:
    """The rows with the last answers of other rows; None where rows are plain texts, or too few answers differ."""
    if not all(_is_answered(row) for row in rows):
        return None
    answers = [row["messages"][-1] for row in rows]
    texts = [answer["content"] for answer in answers]
    order = sorted(range(len(rows)), key=lambda number: (len(texts[number]), texts[number]))
    others = dict(zip(order, order[1:] + order[:1], strict=True))  # of a like length, so that lengths tell nothing
    if sum(texts[number] != texts[other] for number, other in others.items()) < len(rows) / 2:
        return None
    return [{**row, "messages": [*row["messages"][:-1], answers[others[number]]]} for number, row in enumerate(rows)]


def _is_answered(row: Conversation) -> bool:
    messages = row.get("messages") or []
    return len(messages) > 1 and messages[-1]["role"] == "assistant"


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
