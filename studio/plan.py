"""Plan: will training help, and are there rows enough? The order of a short look, and what its figures say.

The look is a race without losers over shares of the rows (worker/plan.py), beside the untouched base with examples in
its prompt. Everything is measured as the loss of held-out answers, row by row, so that bands and differences come from
a bootstrap over the rows (Efron and Tibshirani 1993, chapter 6).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from studio import race
from studio.config import RunConfig
from studio.contest import Plan
from studio.device import devices
from studio.errors import OrderError
from studio.estimate import Estimate
from studio.evaluation import statistics
from studio.evaluation.statistics import Interval, Statistic
from studio.events import last
from studio.forecast import record
from studio.model import ModelFacts
from studio.run import Run

SHARES = (0.12, 0.25, 0.5, 1.0)  # of the rows
HELD_OUT = 48  # rows measured on, at most
HELD_OUT_SHARE = 0.2  # at most
TURNS = 2  # of each run, with an evaluation at the end
USED = 0.85  # of the minutes, so that a forecast that is off by a little does not break off the last run
LEAST_STEPS = 12  # below this many a run has hardly begun to learn
SURE = 0.99  # how sure it must be that an answer belongs to its question; asked twice
SMALL = 0.05  # of the loss: less is no difference worth training for
SMALL_NATS = 0.1  # and less than this a token neither: the answer is 10 % likelier a token
DOUBLING = 0.03  # of the loss: what twice the rows must bring for more rows to be worth it
MOST_ROWS = 10  # times the rows there are: a power law through four points tells nothing beyond
VERDICTS = ("prompting", "enough", "more_rows", "nothing")


# -- the order


def order(
    base: RunConfig,
    minutes: float,
    facts: ModelFacts | None = None,
    rows: Mapping[str, int] | None = None,
    shots: int = 4,
) -> RunConfig:
    """The order of a look of so many minutes. rows: statistics of the data, if known. Raises OrderError."""
    if not 0 < minutes <= 24 * 60:
        raise OrderError(f"A look of {minutes:g} minutes cannot be.", "Give from 1 to 1440 minutes.", "minutes")
    if rows and rows["rows"] * SHARES[0] < 1:
        least = math.ceil(1 / SHARES[0])
        raise OrderError(f"{SHARES[0]:.0%} of {rows['rows']} rows is no row.", f"Give {least} rows or more.", "data")
    base = base.with_absolute_paths()
    plain = base.model_dump(mode="json", exclude_unset=True)
    evaluation = base.data.eval
    if not isinstance(evaluation, str):
        count = rows["rows"] + rows.get("eval_rows", 0) if rows else 5 * HELD_OUT
        evaluation = max(evaluation or 0.0, min(HELD_OUT_SHARE, HELD_OUT / max(1, count)))
    short = base.with_changes(
        data={"eval": evaluation, "eval_rows": HELD_OUT},
        training={
            "accumulation": 1 if base.training.accumulation == "auto" else base.training.accumulation,
            "early_stopping": None,
            "keep_best": False,
            "sample_prompts": [],
        },
    )
    steps = short.training.steps(rows["rows"]) if rows else short.training.max_steps or 4 * LEAST_STEPS
    if facts is not None and rows is not None:
        steps = min(steps, _affordable(short, minutes, facts, rows, shots))
    short = short.with_changes(training={"max_steps": steps})
    shares = [(f"data.train={json.dumps(_part(plain, share), ensure_ascii=False)}",) for share in SHARES]
    return race.order(short, shares, halving=False, plan=Plan(minutes=minutes, shots=shots))


def _part(plain: dict[str, Any], share: float) -> list[dict[str, Any]]:
    """data.train with a share of every source's rows."""
    train = plain["data"]["train"]
    sources = [{"source": train}] if isinstance(train, str) else train
    return [{"source": source["source"], "weight": round(share * source.get("weight", 1.0), 4)} for source in sources]


def _affordable(config: RunConfig, minutes: float, facts: ModelFacts, rows: Mapping[str, int], shots: int) -> int:
    """Steps of each run that fit into the minutes, by the time forecast."""
    expected = record.forecast(facts, config, devices()[0], rows)
    step = expected.seconds_per_step or 1.0
    left = 60 * minutes * USED - _beside(expected, rows, shots)
    steps = int(left / (len(SHARES) * step))
    if steps < LEAST_STEPS:
        needed = (LEAST_STEPS * len(SHARES) * step + 60 * minutes * USED - left) / USED / 60
        raise OrderError(
            f"In {minutes:g} {'minute' if minutes == 1 else 'minutes'} each of {len(SHARES)} runs makes "
            f"{max(0, steps)} of the {LEAST_STEPS} steps that are the least to tell anything.",
            f"Give {max(2, round(needed + 1))} minutes, or a smaller model or data.max_length.",
            "minutes",
        )
    return steps


def _beside(expected: Estimate, rows: Mapping[str, int], shots: int) -> float:
    """Seconds of the evaluations, of the prompts with examples, and of loading. A forward pass is a third of a step."""
    start = max(0.0, (expected.seconds or 0.0) - (expected.steps or 0) * (expected.seconds_per_step or 0.0))
    count = rows["rows"] + rows.get("eval_rows", 0)
    tokens = min(HELD_OUT, HELD_OUT_SHARE * count) * rows["tokens"] / max(1, rows["rows"])
    passes = len(SHARES) * TURNS + 2 + 2 * (shots + 1)
    return min(start, 60.0) + passes * tokens / 3 / max(1.0, expected.tokens_per_second or 1.0)


def answer(run: Run) -> dict[str, Any] | None:
    """What a look has found: {sentence, verdict, few_shot_loss, curve, rows_needed, …}; None before its end."""
    return (last(run.events_file, ("end",)) or {}).get("plan")


# -- the figures


class Losses(NamedTuple):
    """The losses of held-out rows: the sum over each row's answer, and its tokens."""

    sums: np.ndarray
    tokens: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.tokens.sum())

    @property
    def statistic(self) -> Statistic:
        return statistics.ratio(self.sums.tolist(), self.tokens.tolist())


class Point(NamedTuple):
    """A run on so many rows."""

    rows: int
    losses: Losses


class Figures(NamedTuple):
    """zero: the untouched base; few: with examples in the prompt, None where there are no turns to show.

    swapped: of the same rows with the answers of other rows in place of their own, for the best prompt and the run on
    all rows; None where the answers are all alike or no answers to a question.
    """

    zero: Losses
    few: Losses | None
    curve: list[Point]
    swapped_prompt: Losses | None = None
    swapped_tuned: Losses | None = None

    @property
    def prompt(self) -> Losses:
        """The better of no and some examples."""
        return min((losses for losses in (self.zero, self.few) if losses), key=lambda losses: losses.mean)


def difference(before: Losses, after: Losses, share: float = 0.95) -> Interval:
    """By how much the loss falls, the same rows drawn for both. Without an interval where there is only one row."""
    return statistics.compare({"loss": after.statistic}, {"loss": before.statistic}, share)["loss"].difference


def interval(losses: Losses) -> tuple[float, float]:
    """The 95 % interval of a mean loss; of one row, the loss itself."""
    measured = statistics.compare({"loss": losses.statistic}, {"loss": losses.statistic})["loss"].tuned
    if measured.low is None or measured.high is None:
        return measured.value, measured.value
    return measured.low, measured.high


def power_law(rows: np.ndarray, losses: np.ndarray) -> tuple[float, float, float]:
    """(floor, scale, exponent) of loss = floor + scale · rows^-exponent (Hestness et al. 2017, arXiv 1712.00409), by
    least squares over a grid of exponents; scale and floor are not below 0.
    """
    best = (np.inf, (float(losses.min()), 0.0, 1.0))
    for exponent in np.linspace(0.05, 2.0, 40):
        falling = rows**-exponent
        scale = max(0.0, float(np.cov(falling, losses, bias=True)[0, 1] / np.var(falling)))
        floor = max(0.0, float(losses.mean() - scale * falling.mean()))
        error = float(((floor + scale * falling - losses) ** 2).sum())
        if error < best[0]:
            best = (error, (floor, scale, float(exponent)))
    return best[1]


def rows_needed(curve: list[Point]) -> tuple[int, bool]:
    """(rows from which on twice as many bring less than DOUBLING of the loss, whether that is only a lower bound)."""
    rows, losses = (np.array(values, float) for values in zip(*((point.rows, point.losses.mean) for point in curve)))
    floor, scale, exponent = power_law(rows, losses)
    count, most = float(rows[-1]), MOST_ROWS * float(rows[-1])
    while count < most:
        if scale * (count**-exponent - (2 * count) ** -exponent) < DOUBLING * losses[-1]:
            return round(count), False
        count *= 1.1
    return round(most), True


def conclude(found: Figures) -> dict[str, Any]:
    """{sentence, verdict, few_shot_loss, base_loss, curve: [{rows, loss, low, high}], rows_needed, …}."""
    prompt, tuned = found.prompt, found.curve[-1].losses
    verdict, needed, bound = _verdict(found)
    curve = []
    for point in found.curve:
        low, high = interval(point.losses)
        curve.append({"rows": point.rows, "loss": _round(point.losses.mean), "low": _round(low), "high": _round(high)})
    return {
        "verdict": verdict,
        "sentence": _sentence(verdict, found, needed, bound),
        "few_shot_loss": _round(found.few.mean) if found.few else None,
        "base_loss": _round(found.zero.mean),
        "prompt_loss": _round(prompt.mean),
        "tuned_loss": _round(tuned.mean),
        "curve": curve,
        "rows_needed": needed,
        "rows_needed_at_least": bound,
    }


def _verdict(found: Figures) -> tuple[str, int | None, bool]:
    """(verdict, rows needed in all, whether that is a lower bound)."""
    prompt, tuned = found.prompt, found.curve[-1].losses
    prompt_knows = _knows(prompt, found.swapped_prompt, found.zero)
    if not prompt_knows and not _knows(tuned, found.swapped_tuned, found.zero):
        return "nothing", None, False
    gain, low, _ = difference(prompt, tuned)
    if not low or low <= 0 or gain < max(SMALL * prompt.mean, SMALL_NATS):
        return ("prompting" if prompt_knows else "nothing"), None, False
    needed, bound = rows_needed(found.curve)
    grew, grew_low, _ = difference(found.curve[-2].losses, tuned) if len(found.curve) > 1 else (0.0, 0.0, 0.0)
    if needed > found.curve[-1].rows and grew_low and grew_low > 0 and grew > DOUBLING * tuned.mean:
        return "more_rows", needed, bound
    return "enough", None, False


def _knows(losses: Losses, swapped: Losses | None, zero: Losses) -> bool:
    """Whether a question's own answer is likelier than other rows'; else whether the loss is below the base's."""
    return (difference(zero if swapped is None else swapped, losses, SURE).low or 0) > 0


def _sentence(verdict: str, found: Figures, needed: int | None, bound: bool) -> str:
    prompt, tuned, rows = found.prompt.mean, found.curve[-1].losses, found.curve[-1].rows
    low, high = interval(tuned)
    asked = "with examples in the prompt" if found.few and found.prompt is found.few else "as it is"
    figures = f"loss {prompt:.2f} {asked}, {tuned.mean:.2f} ({low:.2f} to {high:.2f}) after training on {rows} rows"
    if verdict == "nothing":
        return (
            f"This data teaches nothing measurable: a held-out question's own answer is no likelier than other rows' "
            f"answers ({figures})."
        )
    if verdict == "prompting":
        return f"Prompting suffices: training on these rows brings little more ({figures})."
    if verdict == "enough":
        return f"These rows are enough: training helps, and twice as many would bring little more ({figures})."
    more = (needed or 0) - rows
    return (
        f"Training helps, and more rows would help further: {'at least' if bound else 'about'} {more} more ({figures})."
    )


def _round(value: float) -> float:
    return round(float(value), 4)
