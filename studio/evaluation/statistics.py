"""Figures of a set of rows as functions of summed rows, and their 95 % intervals by bootstrap.

Everything measured here (shares, mean loss, corpus BLEU and chrF, macro-F1) depends on its rows through a sum alone:
a row is a vector, a sample of rows is a vector of counts, and counts @ rows is all that a figure needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from studio.evaluation import scores
from studio.evaluation.task import Task, label

SAMPLES = 1000
BLOCK = 100  # samples drawn at once
SEED = 20_260


class Statistic(NamedTuple):
    """rows: [n, k]; value: sums [samples, k] -> figures [samples]."""

    rows: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]

    def point(self) -> float:
        return float(self.value(self.rows.sum(0, keepdims=True))[0])


def mean(values: Sequence[float]) -> Statistic:
    """The mean of one number a row."""
    return ratio(values, [1.0] * len(values))


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Statistic:
    """The sum of parts over the sum of wholes: a loss by token has the losses of rows and their tokens."""
    rows = np.column_stack([np.asarray(parts, float), np.asarray(wholes, float)])
    return Statistic(rows, lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-12))


def macro_f1(answers: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Statistic:
    """The mean over labels of F1 = 2 tp / (2 tp + fp + fn); an answer that is no label is missed, and accuses none.

    A label that neither a sample's references nor its answers hold is left out of that sample's mean.
    """
    said, true = [[label(text) for text in texts] for texts in (answers, references)]
    hit, answered, wanted = (
        np.array([[test(a, b, name) for name in labels] for a, b in zip(said, true, strict=True)], float)
        for test in (lambda a, b, name: a == name == b, lambda a, b, name: a == name, lambda a, b, name: b == name)
    )

    def value(sums: np.ndarray) -> np.ndarray:
        hits, both = sums[:, : len(labels)], sums[:, len(labels) :]  # both: 2 tp + fp + fn
        present = both > 0
        f1 = np.where(present, 2 * hits / np.maximum(both, 1), 0)
        return f1.sum(1) / np.maximum(present.sum(1), 1)

    return Statistic(np.hstack([hit, answered + wanted]), value)


def corpus(metric: Any, answers: Sequence[str], references: Sequence[str]) -> Statistic:
    """sacrebleu's figure of a whole corpus, from the statistics that it sums over sentences."""
    rows = np.array(metric._extract_corpus_statistics(list(answers), [list(references)]), float)
    return Statistic(
        rows, lambda sums: np.array([metric._compute_score_from_stats([int(n) for n in row]).score for row in sums])
    )


def of_answers(
    answers: Sequence[str], references: Sequence[str], row_scores: Sequence[Mapping[str, float]], task: Task
) -> dict[str, Statistic]:
    """The statistics of one side's answers by name. row_scores: of scores.score."""
    texts, expected = [scores.final(text) for text in answers], [scores.final(text) for text in references]
    statistics = {
        name: mean([row[name] for row in row_scores])
        for name in scores.NAMES
        if all(name in row for row in row_scores) and name not in ("bleu", "chrf")
    }
    statistics["chrf"] = corpus(scores.chrf(), texts, expected)
    statistics["bleu"] = corpus(scores.bleu(task.tokenizer), texts, expected)
    if task.labels:
        statistics["macro_f1"] = macro_f1(texts, expected, task.labels)
    return {name: statistics[name] for name in scores.NAMES if name in statistics}


class Interval(NamedTuple):
    value: float
    low: float | None
    high: float | None

    @property
    def half(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


class Compared(NamedTuple):
    """One figure of both sides; difference: tuned less base, on the same samples of rows (paired)."""

    base: Interval
    tuned: Interval
    difference: Interval


def compare(base: Mapping[str, Statistic], tuned: Mapping[str, Statistic], share: float = 0.95) -> dict[str, Compared]:
    """All figures that both sides have, with percentile intervals (Efron 1979) over SAMPLES samples of rows.

    The rows of both sides are the same ones, in the same order. Without intervals where there is only one row. share:
    of the samples that lies within an interval.
    """
    compared, draws = {}, {}
    for name in tuned:
        if name not in base:
            continue
        count = len(tuned[name].rows)
        if count not in draws:
            draws[count] = _counts(count)
        before, after = (_sampled(side[name], draws[count]) for side in (base, tuned))
        first, second = base[name].point(), tuned[name].point()
        compared[name] = Compared(
            _interval(first, before, share),
            _interval(second, after, share),
            _interval(second - first, after - before, share),
        )
    return compared


def _counts(rows: int) -> np.ndarray:
    """[SAMPLES, rows]: how often each row is in each sample."""
    if rows < 2:
        return np.zeros((0, rows))
    generator = np.random.default_rng(SEED)
    return generator.multinomial(rows, np.full(rows, 1 / rows), size=SAMPLES)


def _sampled(statistic: Statistic, counts: np.ndarray) -> np.ndarray:
    blocks = [counts[start : start + BLOCK] @ statistic.rows for start in range(0, len(counts), BLOCK)]
    return np.concatenate([statistic.value(sums) for sums in blocks]) if blocks else np.zeros(0)


def _interval(value: float, sampled: np.ndarray, share: float) -> Interval:
    if not len(sampled):
        return Interval(value, None, None)
    low, high = np.quantile(sampled, [(1 - share) / 2, (1 + share) / 2])
    return Interval(value, float(low), float(high))


def wilson(wins: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score (1927). A tie may count as half a win (a little too wide)."""
    if not count:
        return 0.0, 1.0
    share, spread = wins / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
