"""The general set: balanced, the brake's prompts apart from the measured ones; plan, verdict and frontier."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from studio import cards, config, estimate, general
from studio.general import verdict
from studio.memory import tables
from studio.memory.studio_loop import RowStatistics


def test_two_hundred_items_half_of_them_chinese() -> None:
    items = general.measured()
    assert len(items) == 200
    assert len({item.id for item in items}) == 200
    assert set(Counter((item.language, item.kind) for item in items).values()) == {20}
    assert all(item.text or (item.prompt and item.answer) for item in items)
    for item in items:
        is_chinese = any("\u4e00" <= letter <= "\u9fff" for letter in item.prompt + item.text)
        assert is_chinese == (item.language == "zh"), item.id


@pytest.mark.parametrize("count", [20, 40, 100])
def test_any_first_part_is_balanced(count: int) -> None:
    part = general.measured()[:count]
    assert set(Counter((item.language, item.kind) for item in part).values()) == {count // 10}


def test_the_brake_holds_on_to_other_prompts_than_are_measured() -> None:
    measured = {item.prompt or item.text for item in general.measured()}
    braked = [item.prompt or item.text for item in general.braked()]
    assert len(braked) == 80
    assert not measured & set(braked)


def test_the_sums_are_right() -> None:
    """Every equation "a = b" of numbers in the answers holds."""
    checked = 0
    for item in (*general.measured(), *general.braked()):
        if item.kind != "arithmetic":
            continue
        for line in item.answer.replace("×", "*").replace("÷", "/").splitlines():
            sides = [side.strip(" .。,，") for side in line.split("=")]
            plain = [side for side in sides if side and set(side) <= set("0123456789+-*/(). ")]
            for left, right in zip(plain, plain[1:]):
                assert math.isclose(eval(left), eval(right)), item.id
                checked += 1
    assert checked > 15


def test_a_run_measures_what_it_can_afford() -> None:
    lengths = [50] * 200
    assert general.plan(lengths, 1_000, 10) is None
    assert general.plan(lengths, 1e9, 10) == general.Plan(200, 200)
    assert general.plan(lengths, 1_000, 10, forced=True) == general.Plan(general.FEWEST, 200)
    for tokens in (2e4, 5e4, 1e5, 5e5):
        plan = general.plan(lengths, tokens, 10)
        if plan is not None:
            work = 50 * (2 * plan.at_end + 10 * plan.at_evaluations)
            assert work <= general.SHARE * general.TRAINING_PASSES * tokens


def test_the_least_score_lies_on_the_frontier() -> None:
    points = [{"loss": 2.0, "kl": 0.0}, {"loss": 1.5, "kl": 0.1}, {"loss": 1.6, "kl": 0.3}, {"loss": 1.2, "kl": 0.9}]
    assert verdict.frontier(points) == [0, 1, 3]
    best = min(range(len(points)), key=lambda index: verdict.score(points[index]["loss"], points[index]))
    assert best == 1
    assert verdict.score(1.5, None) == 1.5


def test_moved_answers_are_not_called_lost() -> None:
    """A gentle LoRA whose good general answers became likelier was told that it had lost some of what the base knew."""
    found = {"verdict": verdict.judge(-0.1, 0.26), "loss_rise": -0.1, "kl": 0.26, "items": 200}
    assert verdict.describe(found)[0].startswith("It answers general questions somewhat otherwise than the base;")
    assert verdict.sentence({"verdict": "slightly", "loss_rise": 0.1}) == "A little of what the base knew is lost."


def test_the_verdict_is_that_of_the_worse_figure() -> None:
    assert verdict.judge(0.0, 0.0) == verdict.judge(-0.5, 0.01) == "kept"
    assert verdict.judge(verdict.SLIGHT_RISE + 0.01, 0.0) == "slightly"
    assert verdict.judge(0.0, verdict.BAD_KL + 0.01) == "badly"
    assert verdict.advice("kept", True, 0) == []
    assert "keep_general" in verdict.advice("badly", True, 0)[0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_brake_is_in_the_estimate(method: str) -> None:
    """In time by its tokens; in memory where its batch is the largest of a step."""
    facts, device = tables.facts_of("Qwen/Qwen2.5-1.5B-Instruct"), cards.device("NVIDIA A10G")
    order = config.build({"data": {"train": "rows.json"}, "method": method, "training": {"batch_size": 1}})
    rows = RowStatistics(200, 6000, 3000, 40)
    plain, braked = (
        estimate.estimate(facts, order.with_changes(training={"keep_general": strength}), device, rows)
        for strength in (0, 1)
    )
    assert braked.total >= plain.total
    assert braked.total > plain.total or method == "full", "its peak is that of the optimizer here"
    assert braked.seconds is not None
    assert braked.seconds > (plain.seconds or 0)
