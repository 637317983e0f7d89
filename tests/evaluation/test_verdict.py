"""The verdict in words, its Chinese, and the leaderboard's front."""

from __future__ import annotations

import random
from typing import Any

import pytest

from studio.evaluation import results, scores, statistics
from studio.evaluation.order import EvaluationOrder
from studio.evaluation.task import detect
from studio.evaluation.verdict import judge
from studio.runs.leaderboard import mark_front
from studio.ui import words


def compared(base: list[float], tuned: list[float]) -> statistics.Compared:
    return statistics.compare({"x": statistics.mean(base)}, {"x": statistics.mean(tuned)})["x"]


def test_better_worse_same_and_too_few() -> None:
    base, tuned = [1.0] * 24 + [0.0] * 176, [1.0] * 122 + [0.0] * 78
    better = judge("exact_match", compared(base, tuned), 200)
    assert better.state == "better"
    assert better.text == "better: 61 % ± 6 exact, was 12 %"
    assert judge("exact_match", compared(tuned, base), 200).state == "worse"
    noise = random.Random(0)
    coin = [[float(noise.random() < 0.5) for _ in range(40)] for _ in range(2)]
    assert judge("exact_match", compared(*coin), 40).state == "same"
    assert judge("exact_match", compared([0.0] * 4, [1.0] * 4), 4).text.startswith("too few rows (4) to say: 100 %")


def test_of_a_loss_less_is_better() -> None:
    losses = [2.0 + n / 100 for n in range(30)]
    lower = compared(losses, [value - 1 for value in losses])
    assert judge("loss", lower, 30).state == "better"
    assert judge("loss", lower, 30).text.startswith("better: held-out loss 1.1")


@pytest.mark.parametrize(
    "metric", ["exact_match", "label_accuracy", "json_equal", "json_schema", "regex", "rouge_l", "loss"]
)
@pytest.mark.parametrize("rows", [4, 40])
def test_every_verdict_has_chinese(metric: str, rows: int) -> None:
    for base, tuned in (([0.0] * rows, [0.5] * rows), ([0.5] * rows, [0.0] * rows), ([0.5] * rows, [0.5] * rows)):
        text = judge(metric, compared(base, tuned), rows).text
        said = words.translate(text, "zh")
        assert not {"better", "worse", "was", "exact", "loss", "rows"} & set(said.replace("：", " ").split()), said
        assert "%" in said or metric == "loss"


def losses(rows: int, each: float) -> list[dict[str, float]]:
    return [{"loss": 10 * each, "tokens": 10, "correct": 5} for _ in range(rows)]


def test_plain_text_is_judged_by_its_loss() -> None:
    found = results.collect({"base": losses(20, 2.0), "tuned": losses(20, 1.5)}, [], detect([]))
    assert found["base"]["loss"] == pytest.approx(2.0)
    assert found["tuned"]["perplexity"] == pytest.approx(4.4816890703)
    assert found["tuned"]["token_accuracy"] == 0.5
    assert (found["verdict"]["metric"], found["verdict"]["state"]) == ("loss", "better")
    assert found["difference"]["loss"]["value"] == pytest.approx(-0.5)


def test_losses_of_one_side_alone_are_no_comparison() -> None:
    found = results.collect({}, [], detect([]))
    assert (found["verdict"], found["tuned"]["loss"]) == (None, None)


def test_where_nothing_is_the_very_same_the_verdict_goes_by_likeness() -> None:
    row = {"reference": "The number is 5.", "base": "?", "tuned": "The number is 4.", "finish": {}, "change": 1.0}
    task = detect([row["reference"]] * 12)
    scored = {
        side: scores.score(
            {"text": row[side], "finish": "stop", "tokens": 3}, row["reference"], task, EvaluationOrder()
        )
        for side in ("base", "tuned")
    }
    found = results.collect({}, [{**row, "scores": scored}] * 12, task)
    assert (found["verdict"]["metric"], found["verdict"]["state"]) == ("rouge_l", "better")
    assert found["tuned"]["rouge_l"] == 0.75


# -- the leaderboard


def row(name: str, gain: float | None, memory: int, seconds: float, **more: Any) -> dict[str, Any]:
    return {"run": name, "gain": gain, "memory": memory, "seconds": seconds, "size": 5, **more}


def test_the_front_is_whoever_is_beaten_by_nobody() -> None:
    rows = [
        row("best gain", 2.0, 9, 9.0),
        row("smallest", 1.0, 1, 9.0),
        row("beaten", 0.9, 2, 9.5),
        row("twin a", 1.5, 5, 5.0),
        row("twin b", 1.5, 5, 5.0),
        row("no held-out rows", None, 1, 1.0),
    ]
    mark_front(rows)
    assert [one["run"] for one in rows if one["front"]] == ["best gain", "smallest", "twin a", "twin b"]


def test_forgetting_counts_where_both_have_it() -> None:
    gentle, rough = row("gentle", 1.0, 5, 5.0, forgetting=0.01), row("rough", 1.2, 5, 5.0, forgetting=0.9)
    mark_front([gentle, rough])
    assert gentle["front"], "it forgets less"
    mark_front(rows := [gentle | {"forgetting": None}, rough])
    assert [one["front"] for one in rows] == [False, True], "unknown forgetting cannot excuse a smaller gain"
    mark_front([gentle, rough, row("short", 0.1, 5, 5.0)])
    assert gentle["front"], "a third run without the figure does not take it from the others"
