"""The results of an evaluation: figures of both sides with their intervals, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from studio.evaluation import scores, statistics, verdict
from studio.evaluation.order import EvaluationOrder
from studio.evaluation.statistics import Compared, Statistic
from studio.evaluation.task import Task

SIDES = ("base", "tuned")
Answer = Mapping[str, Any]  # {text, finish, tokens}
RowLoss = Mapping[str, float]  # {loss, tokens, correct} of a row: sums over its tokens


def table_row(
    place: int, asked: Mapping[str, Any], answers: Mapping[str, Answer], task: Task, order: EvaluationOrder
) -> dict[str, Any]:
    """One line of the table. asked: {data_row, prompt, reference}; answers: by side."""
    return {
        "row": place,
        "data_row": asked.get("data_row"),
        "prompt": asked["prompt"],
        "reference": asked["reference"],
        **{side: answers[side]["text"] for side in SIDES},
        "change": scores.change(answers["base"]["text"], answers["tuned"]["text"]),
        "finish": {side: answers[side]["finish"] for side in SIDES},
        "scores": {side: scores.score(answers[side], asked["reference"], task, order) for side in SIDES},
    }


def collect(losses: Mapping[str, Sequence[RowLoss]], table: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """{base, tuned, difference, verdict} of what was measured. losses: by side, the same rows in the same order."""
    figures = {side: _loss_statistics(losses.get(side, ())) for side in SIDES}
    if table:
        references = [row["reference"] for row in table]
        for side in SIDES:
            answers, row_scores = [row[side] for row in table], [row["scores"][side] for row in table]
            figures[side] |= statistics.of_answers(answers, references, row_scores, task)
    compared = statistics.compare(figures["base"], figures["tuned"])
    sides = {side: _side(compared, side, losses.get(side, ()), len(table)) for side in SIDES}
    difference = {name: pair.difference._asdict() for name, pair in compared.items()}
    return {**sides, "difference": difference, **_verdicts(compared, losses, table, task)}


def _loss_statistics(rows: Sequence[RowLoss]) -> dict[str, Statistic]:
    if not sum(row["tokens"] for row in rows):
        return {}
    tokens = [row["tokens"] for row in rows]
    return {
        "loss": statistics.ratio([row["loss"] for row in rows], tokens),
        "token_accuracy": statistics.ratio([row["correct"] for row in rows], tokens),
    }


def _side(compared: Mapping[str, Compared], side: str, losses: Sequence[RowLoss], answered: int) -> dict[str, Any]:
    intervals = {name: getattr(pair, side) for name, pair in compared.items()}
    loss = intervals["loss"].value if "loss" in intervals else None
    return {
        "loss": loss,
        "perplexity": None if loss is None else math.exp(min(loss, 50)),
        **{name: interval.value for name, interval in intervals.items() if name != "loss"},
        "tokens": int(sum(row["tokens"] for row in losses)),
        "rows": len(losses),
        "answered": answered,
        "intervals": {name: [one.low, one.high] for name, one in intervals.items() if one.low is not None},
    }


def _verdicts(
    compared: Mapping[str, Compared], losses: Mapping[str, Sequence[RowLoss]], table: Sequence[Any], task: Task
) -> dict[str, Any]:
    """The verdict by answers where there are some, else by loss; the one by loss stands beside it."""
    by_loss = None
    if "loss" in compared:
        by_loss = verdict.judge("loss", compared["loss"], len(losses["tuned"])).as_dict()
    main = by_loss
    if table and task.headline in compared:
        headline = compared[task.headline]
        metric = task.headline
        if metric == "exact_match" and not headline.base.value and not headline.tuned.value:
            metric = "rouge_l"  # none of either is the very same: how near they come says more
        main = verdict.judge(metric, compared[metric], len(table)).as_dict()
    return {"verdict": main, "verdict_by_loss": by_loss}
