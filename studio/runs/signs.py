"""Warnings about a running training, each with the rule of thumb behind it. Pure functions of the run's events."""

from __future__ import annotations

from math import exp, log
from statistics import median
from typing import Any

from studio.events import latest
from studio.runs.preference_signs import answers_grow, both_fall, longer_wins, pairs_by_heart, reward_hacked
from studio.runs.sign import Sign
from studio.runs.state import current_events

__all__ = ["Sign", "signs"]


RECENT = 20  # steps for which a spike is reported
MIN_STEPS = 20  # steps before the course of the loss is judged
Z_SCORE = 3.0  # standard errors by which a change must exceed the noise to be reported
MIN_LOSS = 1e-6  # losses are clamped to this before their logarithm is taken


def signs(events: list[dict[str, Any]]) -> list[Sign]:
    """All current signs, errors first. events: of a run; superseded steps are ignored."""
    events = current_events(events)
    steps = [event for event in events if event["kind"] == "step"]
    evals = [event for event in events if event["kind"] == "eval" and event.get("loss") is not None]
    plan = latest(events, "plan")
    if not steps or "contestant" in steps[-1]:  # the steps of a race are those of several settings
        return []
    candidates = (
        [not_a_number(steps), no_spread(steps, plan)]
        if plan.get("stage") == "grpo"
        else [
            not_a_number(steps),
            nothing_trained(steps, plan),
            rate_too_high(steps, evals),
            flat(steps, evals, plan),
            overfitting(steps, evals),
            spike(steps),
            both_fall(evals),
            longer_wins(evals),
            reward_hacked(evals),
            pairs_by_heart(steps, evals),
            answers_grow(events, plan),
        ]
    )
    kinds = {sign.kind for sign in candidates if sign}
    hidden_by = {
        "flat": {"nothing trained", "rate too high", "not a number"},
        "spike": {"rate too high", "not a number"},
        "rate too high": {"not a number"},
    }
    shown = [sign for sign in candidates if sign and not kinds & hidden_by.get(sign.kind, set())]
    return sorted(shown, key=lambda sign: sign.level != "error")


def not_a_number(steps: list[dict[str, Any]]) -> Sign | None:
    """The newest loss is None: NaN or infinity."""
    if steps[-1]["loss"] is not None:
        return None
    since = next(
        (event for event, before in zip(reversed(steps), reversed(steps[:-1])) if before["loss"] is not None), steps[0]
    )
    return Sign(
        "not a number",
        "error",
        f"The loss is not a number since step {since['step']}.",
        "Once weights hold a NaN, every later step does too; it does not come back.",
        "Stop, and start again with a third of the learning rate, or in bf16 or fp32 instead of fp16.",
        since["step"],
    )


def nothing_trained(steps: list[dict[str, Any]], plan: dict[str, Any]) -> Sign | None:
    """Nothing is trainable, or gradient or loss are exactly zero."""
    if plan.get("trainable") == 0:
        return Sign(
            "nothing trained",
            "error",
            "No weight is trainable.",
            "A method must leave at least one weight to learn.",
            "Stop, and choose other target modules.",
            steps[-1]["step"],
        )
    last = _last(steps, plan)
    if not last:
        return None
    zero_gradient = all(event.get("grad_norm") == 0 for event in last)
    zero_loss = all(event["loss"] == 0 for event in last) and steps[0]["loss"] == 0
    if not zero_gradient and not zero_loss:
        return None
    observation = "The gradient is exactly zero" if zero_gradient else "The loss is exactly zero from the start"
    return Sign(
        "nothing trained",
        "error",
        f"{observation}: nothing is learnt.",
        "Step after step with a zero gradient or loss means that no token or no weight is trained on.",
        "Stop, look at the coloured tokens of a row on the Data page, and check what is trained on.",
        last[-1]["step"],
    )


def _last(steps: list[dict[str, Any]], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The last five steps, or all steps of a run that has fewer; [] while more are to come."""
    return steps[-5:] if len(steps) >= min(5, plan.get("steps", 5)) else []


def no_spread(steps: list[dict[str, Any]], plan: dict[str, Any]) -> Sign | None:
    """The last groups of answers have the same reward throughout: nothing is learnt from them."""
    last = _last(steps, plan)
    flat = [event.get("preference", {}).get("flat", float(event.get("grad_norm") == 0)) for event in last]
    if min(flat, default=0) < 1:
        return None
    reward = last[-1].get("preference", {}).get("reward")
    return Sign(
        "no spread",
        "warning",
        "All answers to a prompt get the same reward"
        + (f" ({reward:.2g})" if reward is not None else "")
        + ": nothing is learnt from them.",
        "Answers are compared within their group; where none is better than the others, there is no direction to go.",
        "Read the answers on the run's page. Where none earns the reward, ask for less or show the form in the prompt; "
        "where all do, it is learnt.",
        last[-1]["step"],
    )


def rate_too_high(steps: list[dict[str, Any]], evals: list[dict[str, Any]]) -> Sign | None:
    """The loss is above its start, or far above its best, by more than its noise; or the held-out loss has risen."""
    losses = _finite_losses(steps)
    if len(losses) < MIN_STEPS:
        return None
    width = max(5, len(losses) // 10)
    last = median(losses[-width:])
    starts_of_windows = range(0, len(losses) - width + 1, max(1, width // 2))
    best = min(median(losses[start : start + width]) for start in starts_of_windows)
    margin = exp(Z_SCORE * error_of_median(losses, width))
    starts = {count: median(losses[:count]) for count in (1, 5)}  # a far too high rate diverges within the first steps
    above_start = any(
        last > 1.1 * start * exp(Z_SCORE * error_of_median(losses, count)) for count, start in starts.items()
    )
    above_start |= (
        len(evals) > 1
        and evals[0]["step"] == 0
        and evals[-1]["loss"] > 1.1 * evals[0]["loss"]
        and last > 0.9 * starts[1]
    )
    # margin squared, since the minimum of many medians is low by chance as well
    if not above_start and last <= max(1.5 * best * margin * margin, best + 0.5):
        return None
    return Sign(
        "rate too high",
        "warning",
        f"The loss rises: {last:.3g} now, {best:.3g} at its best, {min(starts.values()):.3g} at the start.",
        "A loss that ends a tenth above its start, or half above its best, has been thrown off by steps that were "
        "too long.",
        "Stop, and start again with a third of the learning rate.",
        steps[-1]["step"],
    )


def error_of_median(losses: list[float], count: int) -> float:
    """Standard error of the logarithm of a ratio of two medians of `count` losses each.

    Computed from differences of consecutive losses, so that a trend does not count: the median of |x - y| of two normal
    numbers is 0.954 of their standard deviation; a median's standard error is 1.25 of a mean's (Kenney and Keeping,
    Mathematics of Statistics, 1962).
    """
    logs = [log(max(loss, MIN_LOSS)) for loss in losses]
    spread = median(abs(after - before) for before, after in zip(logs, logs[1:])) / 0.954
    return 1.25 * spread * (2 / count) ** 0.5


def flat(steps: list[dict[str, Any]], evals: list[dict[str, Any]], plan: dict[str, Any]) -> Sign | None:
    """The loss (the held-out loss if there is one) has fallen by less than 2 % after a fifth of the run."""
    losses = _finite_losses(steps)
    if len(losses) < 2 * MIN_STEPS or (plan.get("steps") and steps[-1]["step"] < plan["steps"] / 5):
        return None
    quarter = len(losses) // 4
    first, last = median(losses[:5]), median(losses[-quarter:])
    text = f"The loss does not fall: {first:.3g} at the start, {last:.3g} in the last quarter."
    uncertainty = 2 * error_of_median(losses, quarter)
    if len(evals) > 1 and evals[0]["step"] == 0:
        if last < 0.98 * first * exp(-uncertainty):
            return None  # the training rows are learnt, whatever the held-out loss is
        first, last = evals[0]["loss"], min(event["loss"] for event in evals[1:])
        uncertainty = 0.0
        text = f"The held-out loss does not fall: {first:.3g} at the start, {last:.3g} at its best."
    if last < 0.98 * first or first < 0.05 or uncertainty > 0.04:
        return None
    return Sign(
        "flat",
        "warning",
        text,
        "In a sound run the loss falls by more than 2 % within the first fifth of the steps.",
        "Try three times the learning rate; check that the answers, not the questions, are trained on.",
        steps[-1]["step"],
    )


def overfitting(steps: list[dict[str, Any]], evals: list[dict[str, Any]]) -> Sign | None:
    """The held-out loss has risen twice since its best while the training loss kept falling."""
    if len(evals) < 3:
        return None
    best = min(evals, key=lambda event: event["loss"])
    after = [event for event in evals if event["step"] > best["step"]]
    if len(after) < 2 or after[-1]["loss"] < 1.02 * best["loss"] or after[-1]["loss"] < after[0]["loss"]:
        return None
    before = _finite_losses([event for event in steps if event["step"] <= best["step"]])[-10:]
    since = _finite_losses([event for event in steps if event["step"] > best["step"]])[-10:]
    if not before or not since or median(since) >= median(before):
        return None
    return Sign(
        "overfitting",
        "warning",
        f"The held-out loss has risen from {best['loss']:.3g} at step {best['step']} to {after[-1]['loss']:.3g}, "
        "while the training loss falls: it learns the data by heart.",
        "Held-out loss up twice in a row while training loss falls: what is learnt now does not carry over to new "
        "questions.",
        f"Stop; the best state was near step {best['step']}. Next time: fewer epochs, more data, or a smaller rank.",
        after[-1]["step"],
    )


def spike(steps: list[dict[str, Any]]) -> Sign | None:
    """One of the latest losses is far above those before it."""
    for index in range(len(steps) - 1, max(MIN_STEPS, len(steps) - RECENT) - 1, -1):
        loss, before = steps[index]["loss"], _finite_losses(steps[index - MIN_STEPS : index])
        if loss is None or len(before) < MIN_STEPS // 2:
            continue
        usual = median(before)
        deviations = [abs(log(max(earlier, MIN_LOSS) / max(usual, MIN_LOSS))) for earlier in before]
        spread = 1.483 * median(deviations)  # the standard deviation of normal numbers
        if loss > max(2.0, exp(6 * spread)) * usual and loss > usual + 0.5:
            return Sign(
                "spike",
                "warning",
                f"The loss jumped to {loss:.3g} at step {steps[index]['step']}; it was about {usual:.3g}.",
                f"A step above twice the median of the {MIN_STEPS} before, and far outside their spread, is a spike; "
                f"a single one is harmless if the loss is back within {RECENT} steps.",
                "Wait; if it does not come back or spikes return, lower the learning rate or the max gradient norm.",
                steps[index]["step"],
            )
    return None


def _finite_losses(steps: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in steps if event["loss"] is not None]
