"""Signs of trouble: each course of a loss gets the words it should, and a sound one gets none."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from studio.signs import signs


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


def test_flat_is_not_said_early() -> None:
    assert kinds(diary([2.0] * 45, steps=1000)) == []


def test_nothing_trained() -> None:
    told = diary([2.0] * 50)
    for event in told:
        event["grad_norm"] = 0.0
    assert kinds(told) == ["nothing trained"]
    assert kinds(diary([1.0], trainable=0)) == ["nothing trained"]
    assert "nothing trained" in kinds(diary([0.0] * 6))


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
    for told in (diary([None]), diary([2 + 0.05 * place for place in range(60)]), diary([2.0] * 100), diary([1.0], trainable=0)):
        for sign in signs(told):
            assert all((sign.text, sign.rule, sign.action))
