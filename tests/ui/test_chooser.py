"""The model chooser: models answered for the order's device and data, within one's rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import cards
from studio.base import catalogue
from studio.ui import chooser, questions, rights, who
from studio.ui.who import OWNER, VISITOR, WATCHER

NAMES = ["Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-72B-Instruct"]


def test_the_listing_needs_no_network_and_says_how_to_get_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.base.hub.unreachable", lambda: pytest.fail("the Hub was asked"))
    rows = {row["model"]: row for row in chooser.listing({"lang": "zh"})["rows"]}
    assert rows.keys() >= catalogue.entries().keys()
    assert "接受条款" in rows["google/gemma-3-1b-it"]["access"]
    assert rows["Qwen/Qwen3-0.6B"]["access"] is None


def test_models_of_this_computer_are_the_owners(home: Path, tiny_model: Path) -> None:
    (home / "models").mkdir(exist_ok=True)
    (home / "models" / "mine").symlink_to(tiny_model)
    name = str(home / "models" / "mine")
    assert any(row["model"] == name and row["local"] for row in chooser.listing({})["rows"])
    assert chooser.fitting({"order": None, "ids": [name]})["answers"][name]["fits"]["lora"]["fits"]
    with who.acting_as(who.Requester(VISITOR)):
        assert not any(row["model"] == name for row in chooser.listing({})["rows"])
        assert not chooser.fitting({"order": None, "ids": [name]})["answers"]


@pytest.mark.parametrize("order", [None, {"data": {"train": "nowhere.json"}}, {"data": 7}])
def test_an_order_that_is_not_whole_is_answered_all_the_same(home: Path, order: dict | None) -> None:
    found = chooser.fitting({"order": order, "name": "RTX 4060", "ids": NAMES})
    small, large = (found["answers"][name] for name in NAMES)
    assert found["device"]["memory"] == cards.device("RTX 4060").memory
    assert found["rows"] is None
    assert small["fits"]["qlora"]["fits"]
    assert large["smallest"]["memory"] > found["device"]["memory"]


def test_the_data_gives_a_time(with_small_starter: Path) -> None:
    order = {"data": {"train": "sample:three-lines"}, "model": NAMES[0], "method": {"name": "lora"}}
    found = chooser.fitting({"order": order, "name": "RTX 4060", "ids": NAMES[:1]})
    assert found["rows"]
    assert found["answers"][NAMES[0]]["fits"]["lora"]["seconds"] > 0


def test_a_time_needs_no_tokenizer(home: Path, tmp_path: Path) -> None:
    """On a fresh computer without a model the rows' bytes tell about how many tokens they are."""
    rows = tmp_path / "own.csv"
    rows.write_text("question,answer\n" + "Where is it?,It is over there.\n" * 40)
    found = chooser.fitting({"order": {"data": {"train": str(rows)}}, "name": "RTX 4060", "ids": NAMES[:1]})
    assert found["rows"] == 38
    assert found["answers"][NAMES[0]]["fits"]["lora"]["seconds"] > 0


def test_the_hub_is_searched_by_the_owner_and_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in rights.declared_in(chooser, reads=True):
        assert rights.roles_of(questions.reads()[f"chooser/{read.__name__}"]) == {OWNER, WATCHER, VISITOR}
    monkeypatch.setattr(chooser, "unreachable", lambda: "no network")
    with who.acting_as(who.Requester(WATCHER)):
        assert chooser.hub({"search": "a model that nobody has"}) == {"rows": [], "service": None}
    found = chooser.hub({"search": "a model that nobody has", "lang": "zh"})
    assert found["rows"] == []
    assert "no network" in found["service"]
    assert "Hub" in found["service"]
