"""Races and plans on the page: jobs start them and refuse what may not be named; the view is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import queue, race, run
from studio.errors import StudioError
from studio.export.report import report
from studio.run import Run
from studio.ui import live, races

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "listing", live.Listing())
    monkeypatch.setattr(queue, "advance", lambda: None)


def asked(name: str) -> dict[str, Any]:
    return json.loads(races.standing({"id": name}).body)


def raced(one: Run) -> None:
    """As a race leaves its folder when the second setting has won."""
    rows = race.table(one)
    for row, loss in zip(rows, (2.5, 1.5), strict=True):
        part = race.contestant(one, row["contestant"])
        part.folder.mkdir(parents=True)
        (part.folder / "config.yaml").write_text(race.orders(one.config)[row["contestant"] - 1].to_yaml())
        for step in (1, 2):
            part.append("step", step=step, loss=3.0 - step, tokens=step, attempt=1)
        part.append("eval", step=2, loss=loss, attempt=1)
        row |= {"step": 2, "steps": 4, "eval_loss": loss, "losses": [loss], "trainable": 10, "share": 0.1}
    rows[0] |= {"state": "out", "cause": "Stopped at step 2: <its> held-out loss 2.5000 was number 2 of 2."}
    race.rank(rows)
    one.append("phase", name="training", attempt=1)
    one.append("eval", step=4, loss=1.5, table=rows, attempt=1)
    one.append("end", state="finished", attempt=1)


def test_a_race_is_started_watched_and_its_winner_found(order_yaml: str) -> None:
    made = races.start_race(order_yaml, ["method.rank=2,4"])
    assert made["state"] == "queued"
    one = run.find(made["run"])
    assert [row["label"] for row in asked(one.id)["rows"]] == ["rank 2", "rank 4"]
    assert live.listing.rows()[0]["race"] == {"settings": 2, "plan": False}
    with pytest.raises(StudioError, match="is not over"):
        races.keep_setting(one.id)
    raced(one)
    first, second = asked(one.id)["rows"]
    assert (first["label"], first["place"], first["order"]["method"]["rank"]) == ("rank 4", 1, 4)
    assert "race" not in first["order"]
    assert first["curves"] == {"train": [[1, 2.0], [2, 1.0]], "eval": [[2, 1.5]]}
    assert second["state"] == "out"
    page = report(one)
    assert "rank 4" in page
    assert "&lt;its&gt; held-out loss" in page
    with pytest.raises(StudioError, match="no checkpoint"):
        races.keep_setting(one.id, 1)


def test_a_race_without_values_has_six_settings(order_yaml: str) -> None:
    made = races.start_race(order_yaml, [])
    assert len(run.find(made["run"]).config.race.settings) == 6


@pytest.mark.parametrize(
    "settings",
    [
        ["data.train=/etc/passwd,/etc/hosts"],
        ["method.rank=2"],
        ["model=a,b"],
        ["training.report_to=[wandb],[mlflow]"],
        "method.rank=2,4",
        [3],
        ["method.rank=2,many"],
    ],
    ids=str,
)
def test_settings_are_refused(order_yaml: str, settings: Any) -> None:
    with pytest.raises(StudioError):
        races.start_race(order_yaml, settings)
    assert not run.runs()


def test_an_order_that_is_a_race_is_not_started(order_yaml: str) -> None:
    order = {**json.loads(order_yaml), "race": {"settings": [["data.train=/etc/passwd"], ["method.rank=2"]]}}
    for job in (races.start_race, races.start_plan):
        with pytest.raises(StudioError):
            job(json.dumps(order), [] if job is races.start_race else 10)
    assert not run.runs()


def test_a_plan_is_started_and_its_answer_shown(order_yaml: str, tiny_data: Path) -> None:
    made = races.start_plan(order_yaml, 60)
    one = run.find(made["run"])
    assert [row["label"] for row in asked(one.id)["rows"]][-1] == "100 % of the rows"
    found = {
        "verdict": "enough",
        "sentence": "These <rows> are enough.",
        "base_loss": 3.0,
        "few_shot_loss": None,
        "curve": [{"rows": 10, "loss": 1.0, "low": 0.9, "high": 1.1}],
        "runs": [],
    }
    one.append("end", state="finished", plan=found, attempt=1)
    assert asked(one.id)["plan"] == found
    assert "These &lt;rows&gt; are enough." in report(one)
    with pytest.raises(StudioError, match="minutes"):
        races.start_plan(order_yaml, 0)


def test_nobody_is_asked_of(order_yaml: str) -> None:
    assert asked("2026-01-01-0000-nobody")["rows"] == []
    assert asked("../uploads")["rows"] == []
