"""Signs of trouble: each course of a loss gets the words it should, and a sound one gets none."""

from __future__ import annotations

import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from studio.events import Lock
from studio.run import Run
from studio.runs.signs import signs
from studio.runs.silence import silence


def diary(losses: list[float | None], evals: dict[int, float] | None = None, **plan: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [{"at": 0, "kind": "plan", "steps": len(losses), "trainable": 10, **plan}]
    for step, loss in enumerate(losses, 1):
        told.append({"at": step, "kind": "step", "step": step, "loss": loss, "grad_norm": 1.0})
        if evals and step in evals:
            told.append({"at": step, "kind": "eval", "step": step, "loss": evals[step]})
    return told


def falling(count: int = 100, noise: float = 0.05) -> list[float]:
    chance = random.Random(1)
    return [0.5 + 2 * math.exp(-3 * place / count) + chance.gauss(0, noise) for place in range(count)]


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [sign.kind for sign in signs(told)]


@pytest.mark.parametrize("count", [0, 1, 5, 19, 40, 100, 1000])
def test_a_sound_run_gets_none(count: int) -> None:
    assert kinds(diary(falling(count), {count // 4: 2.0, count // 2: 1.5, count: 1.4} if count > 10 else None)) == []


def test_not_a_number() -> None:
    found = signs(diary([*falling(30), None, None, None]))
    assert [sign.kind for sign in found] == ["not a number"]
    assert found[0].step == 31
    assert found[0].level == "error"


def test_rate_too_high() -> None:
    assert kinds(diary([2 + 0.05 * place for place in range(60)])) == ["rate too high"]
    assert "rate too high" in kinds(diary([*falling(60), *([3.0] * 30)]))


def test_flat() -> None:
    chance = random.Random(2)
    assert kinds(diary([2 + chance.gauss(0, 0.02) for _ in range(100)])) == ["flat"]


def noisy(seed: int, spread: float, falls: float, count: int = 120) -> list[float]:
    """A sound course whose steps scatter: small batches of unlike rows."""
    chance = random.Random(seed)
    return [
        2 * (1 - falls + falls * math.exp(-4 * place / count)) * math.exp(chance.gauss(0, spread))
        for place in range(count)
    ]


@pytest.mark.parametrize("spread", [0.05, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_noise_is_no_sign(seed: int, spread: float) -> None:
    """At no moment of the run, with or without held-out rows."""
    losses = noisy(seed, spread, 0.3)
    evals = {step: 2 * (0.7 + 0.3 * math.exp(-4 * step / 120)) for step in range(0, 121, 12)}
    for many in range(20, 121, 10):
        told = diary(losses[:many], steps=120)
        assert kinds(told) == []
        held = [{"at": 0, "kind": "eval", "step": step, "loss": loss} for step, loss in evals.items() if step <= many]
        assert kinds([*told, *held]) == []


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_trouble_is_seen_through_noise(spread: float) -> None:
    for seed in range(5):
        chance = random.Random(seed)
        climbing = [
            2 * math.exp(3 * abs(place / 120 - 0.3)) * math.exp(chance.gauss(0, spread)) for place in range(120)
        ]
        assert kinds(diary(climbing)) == ["rate too high"]


def test_thrown_off_at_once() -> None:
    """As measured: full fine-tuning of a tiny model at a rate of 1.0 without clipping.

    It comes back, far above where it was.
    """
    losses = [
        5.9,
        14.0,
        29.8,
        42.4,
        35.3,
        46.9,
        43.7,
        43.0,
        27.2,
        42.5,
        27.8,
        23.7,
        38.0,
        36.3,
        41.6,
        37.7,
        32.5,
        41.6,
        25.4,
        33.4,
        27.0,
        30.9,
        30.5,
        39.4,
    ]
    assert kinds(diary(losses)) == ["rate too high"]


def test_learnt_early_is_not_flat() -> None:
    """As measured: an adapter that has learnt what there is in the first quarter."""
    chance = random.Random(1)
    assert kinds(diary([5.9, 5.8, 5.7, 5.6, 5.5, 5.45] + [5.4 + chance.gauss(0, 0.03) for _ in range(90)])) == []


def test_a_held_out_loss_that_stays_is_flat() -> None:
    told = diary(noisy(1, 0.3, 0.0), steps=120) + [
        {"at": 0, "kind": "eval", "step": step, "loss": 2.0} for step in range(0, 121, 12)
    ]
    found = signs(told)
    assert [sign.kind for sign in found] == ["flat"]
    assert "held-out" in found[0].text


def test_flat_is_not_said_early() -> None:
    assert kinds(diary([2.0] * 45, steps=1000)) == []


def test_nothing_trained() -> None:
    told = diary([2.0] * 50)
    for event in told:
        event["grad_norm"] = 0.0
    assert kinds(told) == ["nothing trained"]
    assert kinds(diary([1.0], trainable=0)) == ["nothing trained"]
    assert "nothing trained" in kinds(diary([0.0] * 6))
    assert kinds(diary([0.0] * 2)) == ["nothing trained"], "a run of two steps has no more to come"
    assert kinds(diary([0.0] * 2, steps=9)) == []


def test_answers_without_a_better_one_are_told_also_of_a_short_run() -> None:
    def told(steps: int, flat: float) -> list[str]:
        events = diary([0.0] * 2, stage="grpo", steps=steps)
        return kinds([event | {"preference": {"flat": flat, "reward": 1.0}} for event in events])

    assert told(2, 1.0) == ["no spread"]
    assert told(2, 0.5) == told(9, 1.0) == []


def test_overfitting() -> None:
    found = signs(diary(falling(100), {20: 1.5, 40: 1.3, 60: 1.4, 80: 1.6, 100: 1.9}))
    assert [sign.kind for sign in found] == ["overfitting"]
    assert "step 40" in found[0].text


def test_one_bad_evaluation_is_not_overfitting() -> None:
    assert kinds(diary(falling(100), {20: 1.5, 40: 1.3, 60: 1.4})) == []


def test_spike() -> None:
    losses = falling(60)
    losses[50] = 9.0
    assert kinds(diary(losses)) == ["spike"]
    assert kinds(diary([*losses, *falling(40)[20:]])) == []


def test_superseded_steps_do_not_count() -> None:
    told = diary([*falling(30), None, None])
    told.append({"at": 99, "kind": "phase", "name": "training", "from_step": 30})
    assert kinds(told) == []


def test_every_sign_has_its_rule_and_action() -> None:
    for told in (
        diary([None]),
        diary([2 + 0.05 * place for place in range(60)]),
        diary([2.0] * 100),
        diary([1.0], trainable=0),
    ):
        for sign in signs(told):
            assert all((sign.text, sign.rule, sign.action))


def compared(chosen: float, rejected: float, **lengths: float) -> list[dict[str, Any]]:
    """A sound run that compares answers, whose log-probabilities end so; they begin at -30 and -40."""
    told = diary(falling(40), {1: 0.69, 40: 0.4})
    ends = ({"logps_chosen": -30.0, "logps_rejected": -40.0}, {"logps_chosen": chosen, "logps_rejected": rejected})
    for event, values in zip([event for event in told if event["kind"] == "eval"], ends, strict=True):
        sizes = {"length_chosen": 10.0, "length_rejected": 10.0, **lengths}
        event["preference"] = {**values, **sizes, "accuracy": 0.95}
    return told


def test_what_goes_wrong_where_answers_are_compared() -> None:
    assert kinds(compared(-28, -60)) == []
    assert kinds(compared(-45, -60)) == ["both fall"]
    assert kinds(compared(-28, -60, length_chosen=20.0)) == ["length"]


def judged(*held_out: tuple[float, float], trained: float = 0.8) -> list[dict[str, Any]]:
    """A sound run with such a (accuracy, margin) at each evaluation, the first before the first step."""
    losses = {1 + place * 10: 0.69 - 0.01 * place for place in range(len(held_out))}
    told = diary(falling(40), losses)
    for event, (accuracy, margin) in zip([one for one in told if one["kind"] == "eval"], held_out, strict=True):
        event["preference"] = {"accuracy": accuracy, "margin": margin}
    for event in told:
        if event["kind"] == "step":
            event["preference"] = {"accuracy": trained}
    return told


def test_a_reward_that_rises_without_judgement() -> None:
    assert kinds(judged((0.5, 0.0), (0.8, 0.4), (0.85, 0.9))) == []
    assert kinds(judged((0.5, 0.0), (0.8, 0.4), (0.7, 0.9))) == ["reward hacked"]
    assert kinds(judged((0.5, 0.0), (0.8, 0.4), (0.7, 0.3))) == []  # both fall: it unlearns


def test_pairs_that_are_known_by_heart() -> None:
    assert kinds(judged((0.5, 0.0), (0.55, 0.1), trained=1.0)) == ["pairs by heart"]
    assert kinds(judged((0.5, 0.0), (0.9, 0.1), trained=1.0)) == []
    assert kinds(judged((0.5, 0.0), (0.55, 0.1), trained=0.7)) == []


def test_answers_that_grow_under_preference_training() -> None:
    def told(stage: str, factor: int) -> list[dict[str, Any]]:
        events = judged((0.5, 0.0), (0.9, 0.5))
        next(event for event in events if event["kind"] == "plan")["stage"] = stage
        answers = [(0, "A sentence of some length, as asked for."), (20, "A sentence of some length. " * factor)]
        return events + [{"at": 1, "kind": "sample", "step": n, "prompt": "p", "answer": text} for n, text in answers]

    assert kinds(told("dpo", 1)) == []
    assert kinds(told("dpo", 4)) == ["answers grow"]
    assert kinds(told("sft", 4)) == []


@pytest.mark.parametrize(("phase", "pace", "silent", "told"), [
    ("training", 2.0, 100, False), ("training", 2.0, 300, True), ("training", 60.0, 300, False),
    ("training", 60.0, 1300, True), ("evaluating", 2.0, 300, False), ("evaluating", 2.0, 2000, True),
    ("reconnecting", 2.0, 2000, False),
])  # fmt: skip
def test_a_run_of_which_nothing_is_heard(home: Path, phase: str, pace: float, silent: float, told: bool) -> None:
    """As after SIGSTOP: the lock is held, and nothing is written."""
    run = Run(home / "runs" / "2026-11-22-1200-quiet")
    run.folder.mkdir(parents=True)
    events = [{"at": step * pace, "kind": "step", "step": step} for step in range(1, 9)]
    run.events_file.touch()
    events.append({"at": 8 * pace, "kind": "phase", "name": phase})
    os.utime(run.events_file, (time.time() - silent,) * 2)
    assert silence(run, events) == []  # it does not live
    lock = Lock(run.lock)
    assert lock.acquire()
    found = silence(run, events)
    assert [(sign.kind, sign.step) for sign in found] == [("silent", 8)] * told
    assert all(f"for {silent / 60:.0f} minutes" in sign.text for sign in found)
    run.log.touch()
    assert silence(run, events) == []  # its output is heard
    lock.release()
