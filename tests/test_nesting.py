"""Deep nesting in any text a user writes ends in a sentence, whichever parser is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml.error import MarkedYAMLError

from studio import config, json_text, model, yaml_text
from studio.base.source import ModelOrder
from studio.data.dataset_info import from_dataset_info
from studio.errors import StudioError
from studio.presets import PRESETS
from studio.ui import tune
from tests.conftest import terminal

DEEP = [
    "x: " + "[" * 190_000,
    "x: " + "[" * 900 + "]" * 900,
    "- " * 90_000,
    "{a: " * 40_000,
    "\n".join(" " * n + "a:" for n in range(2000)),
    "x: " + "[" * 31 + "]" * 31,
    "a: &a [1]\nb: [" + "*a, " * 40 + "]",
]


class Shallow(yaml.SafeLoader):
    """A parser with a depth limit of its own, as libyaml's since PyYAML 6.0.4: beyond it, an error before any event."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        if str(stream).count("[") > 1000:
            raise MarkedYAMLError(problem="exceeded maximum nesting depth")


class Endless(yaml.SafeLoader):
    """A parser whose own calls end first."""

    def get_single_data(self) -> Any:
        raise RecursionError


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
@pytest.mark.parametrize("loader", [yaml_text.FAST, yaml.SafeLoader, Shallow])
def test_deep_yaml_is_refused_by_every_parser(text: str, loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "FAST", loader)
    with pytest.raises(StudioError, match="nested too deeply"):
        config.parse(text)
    with pytest.raises(StudioError, match="nested too deeply"):
        config.parse("data: {train: x}", [f"method={text}"])


def test_a_parser_that_gives_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "Loader", Endless)
    with pytest.raises(StudioError, match="nested too deeply"):
        config.parse("data: {train: x}")


def test_thirty_levels_are_read() -> None:
    assert yaml_text.read("[" * 30 + "]" * 30) is not None
    assert json_text.read("[" * 100 + "]" * 100) is not None


@pytest.mark.parametrize("depth", [101, 900, 200_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_deep_json_is_refused(depth: int, pair: Any, tmp_path: Path) -> None:
    opened, closed = pair
    text = opened * depth + "1" + closed * depth
    with pytest.raises(json_text.NestingError):
        json_text.read(text)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StudioError):
        model.facts_of(ModelOrder(source=str(tmp_path)))
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(StudioError):
        from_dataset_info(tmp_path / "dataset_info.json", "x")


def test_a_preset_on_a_deep_order() -> None:
    """What a page's question may hold at most can be copied, checked and written."""
    order: Any = []
    for _ in range(json_text.DEEPEST - 3):
        order = [order]
    plain = {"data": {"train": order}}
    assert tune.preset({"order": plain, "name": next(iter(PRESETS))})["order"]["data"]["train"] == order
    assert tune.write({"order": plain})["yaml"]


def test_the_terminal_says_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "order.yaml").write_text(DEEP[0])
    done = terminal(["train", str(tmp_path / "order.yaml"), "--json"], tmp_path / "home")
    assert done.returncode == 2
    assert "nested too deeply" in json.loads(done.stdout)["error"]["message"]
