"""The leaderboard of runs on one data set, from their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio import config
from studio import run as runs
from studio.errors import RunError
from studio.export import card, report
from studio.run import Run
from studio.runs import evaluations, leaderboard


def finished(model: Path, name: str, data: str, fingerprint: str, loss: float, **figures: float) -> Run:
    run = runs.create(config.build({"name": name, "model": str(model), "data": {"train": data}, "method": "lora"}))
    run.append("plan", data={"sources": [{"source": data, "fingerprint": fingerprint, "rows": 9, "format": "alpaca"}]})
    run.append("eval", step=0, loss=3.0, accuracy=0.25)
    run.append("step", step=4, loss=loss, memory=figures.get("memory", 1000))
    run.append("eval", step=4, loss=loss, accuracy=0.5)
    run.result.mkdir()
    (run.result / "manifest.json").write_text("{}")
    (run.result / "weights").write_bytes(b"x" * int(figures.get("size", 10)))
    run.append("end", state="finished")
    return run


@pytest.fixture
def three(home: Path, tiny_model: Path) -> dict[str, Run]:
    return {
        "good": finished(tiny_model, "good", "sample", "aa", 1.0, memory=2000, size=10),
        "small": finished(tiny_model, "small", "sample", "aa", 2.0, memory=1000, size=10),
        "bad": finished(tiny_model, "bad", "sample", "aa", 2.5, memory=3000, size=500),
        "other": finished(tiny_model, "other", "sample:three_lines_zh", "bb", 0.5),
    }


def test_runs_of_the_data_by_gain(three: dict[str, Run]) -> None:
    rows = leaderboard.leaderboard("sample")
    assert [row["name"] for row in rows] == ["good", "small", "bad"]
    assert [row["gain"] for row in rows] == [2.0, 1.0, 0.5]
    assert [row["front"] for row in rows] == [True, True, False]
    assert rows == leaderboard.leaderboard(three["bad"].id) == leaderboard.leaderboard("aa")
    assert [(one["data"], one["runs"]) for one in leaderboard.groups()] == [("aa", 3)]


def test_a_data_set_without_runs_is_named(three: dict[str, Run]) -> None:
    with pytest.raises(RunError) as refused:
        leaderboard.leaderboard("nothing.json")
    assert "nothing.json" in refused.value.message
    assert "sample" in refused.value.hint


def test_in_report_and_card(three: dict[str, Run]) -> None:
    for text in (report.report(three["good"]), card.card(three["good"])):
        assert "Runs on the same data" in text
        assert "small" in text
        assert "2.0000" in text
    assert "Runs on the same data" not in card.card(three["other"]), "it is the only one"
    assert "token accuracy" in report.report(three["other"])


def test_metrics_before_and_after_an_evaluation(three: dict[str, Run]) -> None:
    run = three["good"]
    found = evaluations.metrics(run)
    assert found["base"] == {"loss": 3.0, "perplexity": pytest.approx(20.0855369232), "token_accuracy": 0.25}
    assert found["tuned"]["token_accuracy"] == 0.5
    summary = runs.summary(run)
    assert (summary["eval_accuracy_before"], summary["eval_accuracy"]) == (0.25, 0.5)
    assert summary["eval_perplexity"] == pytest.approx(2.71828182846)
    evaluations.folder(run).mkdir()
    stored = {"base": {"exact_match": 0.1}, "tuned": {"exact_match": 0.6}, "verdict": None, "table": [1, 2]}
    (evaluations.folder(run) / "results.json").write_text(json.dumps(stored))
    assert evaluations.metrics(run)["tuned"] == {"exact_match": 0.6}
    assert "exact match" in card.card(run)
