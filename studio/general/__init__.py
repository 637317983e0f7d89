"""The general set: what a model should still know after it was tuned on something else.

200 short items in the project's own words, half English, half Chinese: instructions with good answers, facts,
arithmetic, code and plain text. On them forgetting is measured (worker/forgetting.py). 80 more, of the same kinds, are
what the brake holds on to (worker/keep_general.py); none of them is measured on, or the measure would flatter the
brake. The split never changes, so that runs with and without the brake can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from studio.general.verdict import frontier

LANGUAGES = ("en", "zh")
KINDS = ("instruction", "fact", "arithmetic", "code", "text")
FEWEST = 20  # items below which a mean says nothing: two of each kind and language
SHARE = 0.04  # of a run's own computation that measuring may add by itself
TRAINING_PASSES = 3  # a training step costs forward and twice that backward; measuring only goes forward
BRAKE_ROWS = 4  # of a step's brake batch
BRAKE_TOKENS = 256  # padded, of a step's brake batch

_FOLDER = Path(__file__).parent / "items"


class Item(NamedTuple):
    """A question with a good answer, or a text (prompt and answer are then empty)."""

    id: str
    kind: str
    language: str
    prompt: str = ""
    answer: str = ""
    text: str = ""

    @property
    def conversation(self) -> dict[str, object]:
        """As a row of a data set: {text} or {messages}."""
        if self.text:
            return {"text": self.text}
        return {"messages": [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.answer}]}


def measured() -> tuple[Item, ...]:
    """The items that forgetting is measured on. Kinds and languages take turns: any first part is balanced."""
    return _read("")


def braked() -> tuple[Item, ...]:
    """The items of the brake, ordered alike."""
    return _read("brake_")


@lru_cache(maxsize=2)
def _read(prefix: str) -> tuple[Item, ...]:
    groups: dict[tuple[str, str], list[Item]] = {(kind, language): [] for kind in KINDS for language in LANGUAGES}
    for language in LANGUAGES:
        for line in (_FOLDER / f"{prefix}{language}.jsonl").read_text(encoding="utf-8").splitlines():
            item = Item(language=language, **json.loads(line))
            groups[item.kind, language].append(item)
    turns = zip_longest(*groups.values())
    return tuple(item for item in chain.from_iterable(turns) if item is not None)


class Plan(NamedTuple):
    """How many of the measured items are gone through: at each evaluation, and before the first step and at the end."""

    at_evaluations: int
    at_end: int


def plan(lengths: Sequence[int], training_tokens: float, evaluations: int, forced: bool = False) -> Plan | None:
    """What a run can afford, or None where it can afford no FEWEST items and is not `forced`.

    lengths: tokens of each measured item, in order; training_tokens: of all steps; evaluations: with that before the
    first step. Half of SHARE goes to the end (the base's pass and the tuned model's over the same items), half to the
    evaluations. Forced: all items at the end, FEWEST or more at evaluations.
    """
    budget = SHARE * TRAINING_PASSES * training_tokens
    at_end = len(lengths) if forced else _affordable(lengths, budget / 2, 2)
    if at_end < FEWEST:
        return None
    at_evaluations = min(at_end, _affordable(lengths, budget / 2, max(1, evaluations)))
    if at_evaluations < FEWEST:
        at_evaluations = FEWEST if forced else 0
    return Plan(at_evaluations, at_end)


FIGURES = ("step", "loss_rise", "kl", "verdict", "low", "high", "items", "kinds")


def last(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The figures of the last forgetting event, with `final` where it is that of the result; None without one."""
    if not events:
        return None
    return {key: events[-1].get(key) for key in FIGURES} | {
        "final": bool(events[-1].get("final")),
        "advice": events[-1].get("advice") or [],
    }


def curve(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """[{step, loss, gain, loss_rise, kl, front}] of a run's evaluations at which forgetting was measured.

    gain: fall of the held-out loss since before the first step; front: whether no other evaluation is better in both
    loss and KL. The events are those that a resume has not superseded.
    """
    losses = {event["step"]: event["loss"] for event in events if event["kind"] == "eval" and event.get("loss")}
    points = [
        {key: event[key] for key in ("step", "loss_rise", "kl")} | {"loss": losses[event["step"]]}
        for event in events
        if event["kind"] == "forgetting" and not event.get("final") and event["step"] in losses
    ]
    front = set(frontier(points))
    return [
        {**point, "gain": losses[0] - point["loss"] if 0 in losses else None, "front": index in front}
        for index, point in enumerate(points)
    ]


USUAL_TOKENS = 50  # of an item


def is_measured(order: bool | str, training_tokens: float) -> bool:
    """Whether a run will measure forgetting, as far as that is known before its tokenizer has seen the items."""
    return order is True or order == "auto" and plan([USUAL_TOKENS] * FEWEST, training_tokens, 0) is not None


def _affordable(lengths: Sequence[int], tokens: float, passes: int) -> int:
    """How many of the first items fit into so many tokens, gone through `passes` times."""
    for count, length in enumerate(lengths):
        tokens -= length * passes
        if tokens < 0:
            return count
    return len(lengths)
