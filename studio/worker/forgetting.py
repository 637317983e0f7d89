"""Forgetting: how far a tuned model has moved from its base on the general set (studio/general/).

The base is asked once, before the first step (worker/base_answers.py): with adapters switched off, or as the untouched
weights of full fine-tuning (a resume loads the base too, before its checkpoint).

Nothing here draws a random number or changes a weight: a run is the same with and without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from studio import general
from studio.general.verdict import advice, judge
from studio.tokens import Encoder
from studio.worker import distributed
from studio.worker.base_answers import Found, Target, ask_base, compare, encode, targets_of
from studio.worker.memory import unless_short
from studio.worker.modes import as_base, evaluating
from studio.worker.packing import Row


def summarise(items: Sequence[general.Item], figures: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """{loss_rise, kl, verdict, low, high, items, kinds}; low and high: the 95 % interval of the loss rise."""
    rises = torch.tensor([rise for rise, _ in figures], dtype=torch.float64)
    half = 1.96 * float(rises.std()) / len(figures) ** 0.5 if len(figures) > 1 else 0.0
    loss_rise, kl = float(rises.mean()), sum(kl for _, kl in figures) / len(figures)
    kinds = {}
    for key in (*general.KINDS, *general.LANGUAGES):
        chosen = [pair for item, pair in zip(items, figures, strict=True) if key in (item.kind, item.language)]
        if chosen:
            means = (sum(values) / len(chosen) for values in zip(*chosen))
            kinds[key] = dict(zip(("loss_rise", "kl"), (round(value, 4) for value in means)))
    return {
        "loss_rise": round(loss_rise, 4),
        "kl": round(kl, 4),
        "verdict": judge(loss_rise, kl),
        "low": round(loss_rise - half, 4),
        "high": round(loss_rise + half, 4),
        "items": len(figures),
        "kinds": kinds,
    }


class Forgetting:
    """Called with a step, measures, emits a forgetting event, and returns its figures.

    Of several processes the first one measures for all; a sharded model needs all of them, and all find the same.
    """

    def __init__(self, trainer: Any, rows: list[tuple[general.Item, Row]], plan: general.Plan):
        self.trainer, self.plan = trainer, plan
        self.items, self.rows = [item for item, _ in rows[: plan.at_end]], [row for _, row in rows[: plan.at_end]]
        self.base: list[Target] | None = None
        if self._takes_part():
            trainer.report.phase("probing")
            self.base = self._unless_short(self._ask_base)

    def _ask_base(self) -> list[Target]:
        with evaluating(self.trainer) as model, as_base(model):
            return ask_base(model, self.rows, self.trainer.args.device)

    def _unless_short(self, work: Callable[[], Found]) -> Found | None:
        """None where memory is short. A sharded model's processes cannot do without one by one."""
        return work() if self.trainer.sharded else unless_short(work)

    def _takes_part(self) -> bool:
        return self.trainer.sharded or distributed.is_main()

    def __call__(self, step: int, final: bool = False) -> dict[str, Any] | None:
        """The figures, the same on all processes; None where evaluations do without, or where memory was short."""
        count = self.plan.at_end if final else self.plan.at_evaluations
        if not count:
            return None
        self.trainer.report.phase("evaluating")
        measured = self._unless_short(lambda: self._measure(count)) if self.base is not None else None
        measured = distributed.broadcast(measured)
        if measured is None:
            self.plan = general.Plan(0, 0)
            self.trainer.report.note("Forgetting is not measured: memory is too short for it.", "warning")
            return None
        brake = self.trainer.brake.strength if self.trainer.brake is not None else 0
        steps = advice(measured["verdict"], not self.trainer.method.adapter, brake)
        extra = {"final": True, "advice": steps} if final else {}
        self.trainer.report.emit("forgetting", step=step, **measured, **extra)
        return measured

    def _measure(self, count: int) -> dict[str, Any]:
        with evaluating(self.trainer) as model:
            figures = compare(model, self.rows[:count], self.base[:count], self.trainer.args.device)
        return summarise(self.items[:count], figures)


class AfterTraining:
    """The whole general set asked of a base and then of what became of it, in a process that loads both.

    Called with a side ("base" first, then "tuned"), its model and the encoder; returns the figures of the second.
    """

    def __init__(self) -> None:
        self.base: dict[str, Target] = {}

    def __call__(self, side: str, model: Any, encoder: Encoder) -> dict[str, Any] | None:
        device = next(model.parameters()).device
        rows = encode(encoder, general.measured())
        if side == "base":
            answers = ask_base(model, [row for _, row in rows], device)
            self.base = {item.id: answer for (item, _), answer in zip(rows, answers, strict=True)}
            return None
        rows = [(item, row) for item, row in rows if self._is_of_same_tokens(item, row)]
        if not rows:
            return None
        answers = [self.base[item.id] for item, _ in rows]
        return summarise([item for item, _ in rows], compare(model, [row for _, row in rows], answers, device))

    def _is_of_same_tokens(self, item: general.Item, row: Row) -> bool:
        """Whether base and tuned model cut the item into as many target tokens; new tokens can change that."""
        return item.id in self.base and len(self.base[item.id].loss) == len(targets_of(row))


def start(trainer: Any, encoder: Encoder, resolved: Any, order: Any, statistics: dict[str, int]) -> Forgetting | None:
    """Ask the base, before the first step and before a checkpoint is loaded. None where the run does not measure.

    order: training.forgetting; statistics: rows and tokens of the training data.
    """
    if order is False:
        return None
    rows = encode(encoder, general.measured())
    training_tokens = resolved.steps * resolved.effective * statistics["tokens"] / max(1, statistics["rows"])
    evaluations = 1 + resolved.steps // resolved.eval_every if trainer.eval_dataset is not None else 0
    lengths = [len(row["input_ids"]) for _, row in rows]
    plan = general.plan(lengths, training_tokens, evaluations, forced=order is True)
    if plan is None or not rows:
        return None
    return Forgetting(trainer, rows, plan)
