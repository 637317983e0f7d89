"""Kept, slightly or badly: what a measure of forgetting means, and what to do about it.

Two figures, each a mean over the general items of a mean per token, in nats:

  loss_rise   loss of the tuned model minus that of the base on the items' good answers: what it can do less well
  kl          KL(base ‖ tuned) of the next token: how far its answers have moved at all, for better or worse

The loss catches what is lost where the good answer was likely; the KL also catches a model that answers otherwise
where the base was unsure, so the worse of the two decides. BAD_*: a rise of 0.3 makes every token of a good answer a
quarter less likely (exp(-0.3) = 0.74), and an answer of twenty tokens four hundred times less: it will be another one.
SLIGHT_*: at 0.05 the same answer keeps a third of its probability (exp(-20 · 0.05) = 0.37), and is mostly still given.
The KL gets twice the room, because new habits (a tone, a format) move it without loss. Measured on the starter
(python -m tests.bench.forgetting): full fine-tuning at a rate of 4e-4 for seven epochs of ten rows gains 2.65 of
held-out loss at a loss rise of 2.27 and a KL of 2.15, seven and four times the bounds of "badly".
The same with training.keep_general 1 gains 2.79 at a loss rise of 0.51 and a KL of 0.51 (on 40 of the items).
"""

from __future__ import annotations

from typing import Any, Literal

Verdict = Literal["kept", "slightly", "badly"]

SLIGHT_RISE, BAD_RISE = 0.05, 0.3
SLIGHT_KL, BAD_KL = 0.1, 0.5

SENTENCES: dict[Verdict, str] = {
    "kept": "What the base knew is kept.",
    "slightly": "A little of what the base knew is lost.",
    "badly": "Much of what the base knew is lost.",
}


MOVED: dict[Verdict, str] = {
    "slightly": "It answers general questions somewhat otherwise than the base; good answers are as likely as before.",
    "badly": "It answers general questions quite otherwise than the base, though good answers are as likely as before.",
}


def sentence(forgetting: dict[str, Any]) -> str:
    """The verdict in words. Where only the KL decided it, nothing that can be named is lost: the answers have moved."""
    words = SENTENCES if forgetting["loss_rise"] > SLIGHT_RISE else {**SENTENCES, **MOVED}
    return words[forgetting["verdict"]]


def judge(loss_rise: float, kl: float) -> Verdict:
    """The verdict of the worse of the two figures."""
    if loss_rise > BAD_RISE or kl > BAD_KL:
        return "badly"
    if loss_rise > SLIGHT_RISE or kl > SLIGHT_KL:
        return "slightly"
    return "kept"


def advice(verdict: Verdict, full: bool, keep_general: float) -> list[str]:
    """What to change in the next run, most useful first; nothing where all is kept."""
    if verdict == "kept":
        return []
    steps = []
    if not keep_general:
        steps.append("Set training.keep_general to 1: it holds the model near the base on general questions.")
    else:
        steps.append(f"Raise training.keep_general above {keep_general:g}.")
    steps.append("Lower training.learning_rate to a half or less.")
    steps.append("Train for fewer epochs, or set training.keep_best: the best checkpoint is often an early one.")
    if full:
        steps.append("Take LoRA instead of full fine-tuning: it moves less of the model.")
    return steps if verdict == "badly" else steps[:2]


def describe(forgetting: dict[str, Any]) -> list[str]:
    """The figures of a forgetting event in sentences, with what to do."""
    text = (
        f"{sentence(forgetting)} On {forgetting['items']} general questions the loss changed by "
        f"{forgetting['loss_rise']:+.3f} per token and the answers moved by {forgetting['kl']:.3f} (KL to the base)."
    )
    return [text, *(forgetting.get("advice") or [])]


def score(loss: float, forgetting: dict[str, Any] | None) -> float:
    """What the best checkpoint has least of: held-out loss plus KL to the base, both in nats per token.

    The least of a sum with positive weights lies on the frontier: no other checkpoint is better in both. Alike weights
    say that a nat learnt is worth a nat by which general answers have moved.
    """
    return loss if forgetting is None else loss + max(0.0, forgetting["kl"])


def frontier(points: list[dict[str, Any]]) -> list[int]:
    """Indices of the points {loss, kl} that no other point beats in both."""
    return [
        index
        for index, point in enumerate(points)
        if not any(
            other["loss"] <= point["loss"]
            and other["kl"] <= point["kl"]
            and (other["loss"], other["kl"]) != (point["loss"], point["kl"])
            for other in points
        )
    ]
