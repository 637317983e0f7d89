"""The jobs of the Runs tab: they change what is on disk, refuse in words, and never leave the folder of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import preflight, queue, run
from studio.errors import StudioError
from studio.forecast import remedies
from studio.ui import live, runs
from tests.runs.test_checkpoints import save
from tests.ui.fakes import FakeRun

pytestmark = pytest.mark.usefixtures("home")
NAME = "2026-11-22-1200-one"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "listing", live.Listing())


def finished() -> FakeRun:
    fake = FakeRun(NAME, steps=10)
    fake.start(alive=False)
    return fake.train().finish()


def test_label_shows_in_the_list() -> None:
    finished()
    live.listing.rows()
    runs.label(NAME, {"name": "Better", "note": "high rate", "star": True})
    row = live.listing.rows()[0]
    assert (row["name"], row["note"], row["star"]) == ("Better", "high rate", True)


@pytest.mark.parametrize("values", [{"state": "finished"}, {"star": "yes"}, {"note": "x" * 5000}, {"name": 3}])
def test_label_refuses(values: dict[str, Any]) -> None:
    finished()
    with pytest.raises(StudioError):
        runs.label(NAME, values)


def test_delete_says_how_much_and_needs_the_whole_name() -> None:
    fake = finished()
    size = run.find(NAME).size()
    with pytest.raises(StudioError):
        runs.delete("one")  # a part of a name is enough to look, not to delete
    assert runs.delete(NAME)["bytes"] == size
    assert not fake.folder.exists()
    assert live.listing.rows() == []


@pytest.mark.parametrize("name", ["..", "/", "../uploads", ""])
def test_delete_never_leaves_the_runs(name: str, home: Path) -> None:
    finished()
    (home / "uploads").mkdir(exist_ok=True)
    with pytest.raises(StudioError):
        runs.delete(name)
    assert (home / "uploads").is_dir()
    assert (home / "runs" / NAME).is_dir()


def test_a_living_run_is_asked_and_not_deleted() -> None:
    fake = FakeRun(NAME, steps=10)
    fake.start()
    runs.ask(NAME, "save")
    assert run.find(NAME).take_requests() == {"save"}
    with pytest.raises(StudioError):
        runs.ask(NAME, "explode")
    with pytest.raises(StudioError):
        runs.delete(NAME)
    assert runs.pause(NAME)["state"] == "stopping"
    fake.free()


@pytest.mark.parametrize("epochs", [0, -1, float("nan"), "two", 1e9])
def test_extend_refuses(epochs: Any) -> None:
    finished()
    with pytest.raises(StudioError):
        runs.extend(NAME, epochs)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No device is free: what is queued stays there."""
    monkeypatch.setattr(queue, "start", lambda one: False)


def failed(reason: str = "memory") -> run.Run:
    fake = FakeRun(NAME, steps=10)
    fake.start(alive=False)
    fake.train()
    fake.say("end", state="failed", cause="The device ran out of memory.", action="…", reason=reason)
    return run.find(NAME)


@pytest.mark.usefixtures("waiting")
def test_one_click_goes_on_with_a_repair_that_was_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    one = failed()
    small = {"training": {"batch_size": 1, "accumulation": 16}}
    short = {"data": {"max_length": 128}}
    offers = [
        {"change": small, "text": "Batch size 1", "saves": 10, "cost": "slower", "resumes": True},
        {"change": short, "text": "Rows of at most 128 tokens", "saves": 5, "cost": "cut", "resumes": False},
    ]
    monkeypatch.setattr(remedies, "repairs", lambda asked: offers if asked.id == NAME else [])
    monkeypatch.setattr(preflight, "check", lambda order: None)
    with pytest.raises(StudioError, match="not offered"):
        runs.repair_run(NAME, {"training": {"batch_size": 2}})
    anew = runs.repair_run(NAME, short)
    assert anew["run"] != NAME
    assert run.find(anew["run"]).config.data.max_length == 128
    assert runs.repair_run(NAME, small) == {"run": NAME, "state": "queued"}
    again = run.Run(one.folder)
    assert (again.config.training.batch_size, again.config.training.accumulation) == (1, 16)
    assert "Batch size 1" in again.changes()[-1]["why"]


@pytest.mark.usefixtures("waiting")
def test_after_a_loss_that_blew_up_a_run_goes_on_at_half_the_rate() -> None:
    one = failed(reason="nan")
    offers = remedies.repairs(one)
    assert [offer["resumes"] for offer in offers] == [True]
    assert runs.repair_run(NAME, offers[0]["change"]) == {"run": NAME, "state": "queued"}
    assert run.Run(one.folder).config.learning_rate == pytest.approx(one.config.learning_rate / 2)


@pytest.mark.usefixtures("waiting")
def test_the_newest_checkpoint_becomes_the_result() -> None:
    one = failed()
    with pytest.raises(StudioError, match="no whole checkpoint"):
        runs.finish(NAME)
    save(one.checkpoints, 5, "rows")
    assert runs.finish(NAME) == {"run": NAME, "state": "queued"}
    assert run.Run(one.folder).config.training.max_steps == 5
