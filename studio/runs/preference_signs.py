"""Warnings about a training that compares answers, each with the rule of thumb behind it."""

from __future__ import annotations

from typing import Any

from studio.runs.sign import Sign

FALL_PER_TOKEN = 0.1  # nats
LONGER = 1.5  # times as many tokens
TOLD_APART = 0.05  # of held-out pairs: a fall of their share by so much counts
BY_HEART, CHANCE = 0.95, 0.6  # shares of pairs told apart: of those trained on, and of held-out ones


def both_fall(evals: list[dict[str, Any]]) -> Sign | None:
    """Held-out chosen answers have become less likely, by a tenth of a nat a token and more, and rejected ones too."""
    values = [event["preference"] for event in evals if "logps_chosen" in event.get("preference", {})]
    if len(values) < 2 or "logps_rejected" not in values[0] or "logps_rejected" not in values[-1]:
        return None
    before, now = values[0], values[-1]
    fall = (before["logps_chosen"] - now["logps_chosen"]) / max(1.0, now.get("length_chosen", 1.0))
    if fall < FALL_PER_TOKEN or now["logps_rejected"] >= before["logps_rejected"]:
        return None
    return Sign(
        "both fall",
        "warning",
        f"Chosen answers become less likely too: log-probability {before['logps_chosen']:.1f} at the start, "
        f"{now['logps_chosen']:.1f} now.",
        "Comparing widens the gap between two answers; where both fall, what the model writes instead is in neither.",
        "Read the samples; if they get worse, start again with a higher stage.beta, a lower learning rate, or orpo.",
        evals[-1]["step"],
    )


def longer_wins(evals: list[dict[str, Any]]) -> Sign | None:
    """Held-out chosen answers are far longer than rejected ones, and a loss that sums over tokens tells them apart."""
    last = evals[-1].get("preference", {}) if evals else {}
    longer, shorter = last.get("length_chosen", 0.0), last.get("length_rejected", 0.0)
    if not shorter or longer < LONGER * shorter or last.get("accuracy", 0.0) < 0.9:
        return None
    return Sign(
        "length",
        "warning",
        f"Chosen answers have {longer:.0f} tokens, rejected ones {shorter:.0f}: length alone may tell them apart.",
        "A model that has learnt to write more is no better; its rewards rise all the same.",
        "Look at the length of the samples; in dpo, the loss of a pair (stage.loss) sigmoid_norm or simpo counts per "
        "token.",
        evals[-1]["step"],
    )


def reward_hacked(evals: list[dict[str, Any]]) -> Sign | None:
    """The held-out margin is the widest so far, while fewer held-out pairs are told apart than before."""
    values = [event["preference"] for event in evals if {"accuracy", "margin"} <= event.get("preference", {}).keys()]
    if len(values) < 3:
        return None
    best, now = max(values[1:-1], key=lambda value: value["accuracy"]), values[-1]
    widest = max(value["margin"] for value in values[:-1])
    if now["accuracy"] > best["accuracy"] - TOLD_APART or now["margin"] <= max(0.0, widest):
        return None
    return Sign(
        "reward hacked",
        "warning",
        f"The margin grows to {now['margin']:.3g}, but fewer held-out pairs are told apart: {best['accuracy']:.0%} at "
        f"best, {now['accuracy']:.0%} now.",
        "Where the reward rises and judgement does not, the model has found something else that pays, such as length "
        "or a turn of phrase.",
        "Read the samples; start again with fewer epochs or a higher stage.beta, and look what chosen answers have in "
        "common.",
        evals[-1]["step"],
    )


def pairs_by_heart(steps: list[dict[str, Any]], evals: list[dict[str, Any]]) -> Sign | None:
    """Nearly all pairs that are trained on are told apart, and held-out ones hardly better than by chance."""
    last = evals[-1].get("preference", {}).get("accuracy") if len(evals) > 1 else None
    trained = [event["preference"]["accuracy"] for event in steps if "accuracy" in event.get("preference", {})][-10:]
    if last is None or len(trained) < 10 or last > CHANCE or sum(trained) / len(trained) < BY_HEART:
        return None
    return Sign(
        "pairs by heart",
        "warning",
        f"It tells {sum(trained) / len(trained):.0%} of the pairs apart that it is trained on, and {last:.0%} of the "
        "held-out ones.",
        "What is learnt of the pairs does not carry over to others: they are known by heart, or too different.",
        "Take more pairs or fewer epochs; check on the Data page that chosen answers are better for one reason.",
        evals[-1]["step"],
    )


def answers_grow(events: list[dict[str, Any]], plan: dict[str, Any]) -> Sign | None:
    """The answers to the sample prompts have become far longer since the start, under a stage that compares answers."""
    samples = [event for event in events if event["kind"] == "sample"]
    if plan.get("stage", "sft") == "sft" or not samples:
        return None
    first = {event["prompt"]: len(event["answer"]) for event in samples if event["step"] == 0}
    newest = samples[-1]["step"]
    last = {event["prompt"]: len(event["answer"]) for event in samples if event["step"] == newest}
    asked = first.keys() & last.keys()
    if newest == 0 or not asked:
        return None
    before, now = (sum(lengths[prompt] for prompt in asked) / len(asked) for lengths in (first, last))
    if now < LONGER * max(before, 40.0):
        return None
    return Sign(
        "answers grow",
        "warning",
        f"Its answers grow: {before:.0f} characters on average at the start, {now:.0f} now.",
        "Preference training tends to lengthen answers, whether or not they get better.",
        "Read the samples; in dpo, the loss of a pair (stage.loss) sigmoid_norm or simpo counts per token, and "
        "short chosen answers teach brevity.",
        newest,
    )
