"""Every knob of every method, from the registry: declared in full, there and back through YAML, bounded."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from studio import config
from studio.commands.methods import described, knobs
from studio.errors import OrderError
from studio.method import Method
from studio.methods import METHODS

KNOBS = [(name, knob["key"]) for name, kind in METHODS.items() for knob in knobs(kind)]


def order(method: dict) -> config.RunConfig:
    return config.build({"data": {"train": "sample"}, "method": method})


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str) -> None:
    kind = METHODS[name]
    assert kind.model_fields["name"].default == name
    assert kind.label
    assert kind.about.endswith(".")
    assert len(re.findall(r"[.:](?: |$)", kind.advice)) >= 2, "when to take it and what it costs: two sentences"
    assert 0 < kind.learning_rate < 1
    assert kind.mergeable is not bool(kind.cannot_merge), "where a result cannot be merged, words say why"
    assert any(not knob["advanced"] for knob in knobs(kind)), "beginners see something"
    json.dumps(described(kind))


@pytest.mark.parametrize(("name", "key"), KNOBS)
def test_declared(name: str, key: str) -> None:
    """Title, one plain description, and bounds or choices; nothing free but names and texts."""
    field = METHODS[name].model_fields[key]
    knob = next(knob for knob in knobs(METHODS[name]) if knob["key"] == key)
    assert field.title
    assert field.title[0].isupper()
    assert knob["help"][0].islower() or knob["help"][0].isupper()
    assert knob["help"].endswith(".")
    assert len(knob["help"]) > 30
    assert knob["bounds"] or knob["choices"] or isinstance(knob["default"], bool)
    assert knob["default"] is not None or field.default is None


@pytest.mark.parametrize(("name", "key"), KNOBS)
def test_bounds_are_refused(name: str, key: str) -> None:
    """Beyond each bound an OrderError names the knob."""
    knob = next(knob for knob in knobs(METHODS[name]) if knob["key"] == key)
    beyond = {
        ">=": lambda v: v - 1,
        ">": lambda v: v,
        "<=": lambda v: v + 1,
        "<": lambda v: v,
        "at most": lambda v: ["x"] * (v + 1),
        "letters": lambda v: "x" * (v + 1),
    }
    for sign, limit in knob["bounds"].items():
        with pytest.raises(OrderError, match=f"method.{key}"):
            order({"name": name, key: beyond[sign](limit)})
    if isinstance(METHODS[name].model_fields[key].default, bool):
        with pytest.raises(OrderError):
            order({"name": name, key: "perhaps"})


@pytest.mark.parametrize("name", METHODS)
def test_unknown_knob_names_the_nearest(name: str) -> None:
    key = knobs(METHODS[name])[0]["key"]
    with pytest.raises(OrderError, match=f"Unknown key method.{key}x") as refused:
        order({"name": name, key + "x": 1})
    assert key in refused.value.hint


def values(name: str, key: str) -> some.SearchStrategy:
    """Values a knob allows."""
    knob = next(knob for knob in knobs(METHODS[name]) if knob["key"] == key)
    default, bounds = knob["default"], knob["bounds"]
    if knob["choices"]:
        return some.sampled_from(knob["choices"])
    if isinstance(default, bool):
        return some.booleans()
    if "letters" in bounds:
        return some.text("abc äß😀\n", max_size=20)
    if "at most" in bounds:
        return some.lists(some.sampled_from(["lm_head", "embed_tokens"]), max_size=2)
    low, high = bounds.get(">=", bounds.get(">")), bounds.get("<=", bounds.get("<"))
    if isinstance(default, float) or "<" in bounds or ">" in bounds:
        return some.floats(low, high, exclude_min=">" in bounds, exclude_max="<" in bounds, allow_nan=False)
    return some.integers(low, high)


@pytest.mark.parametrize("name", METHODS)
@given(data=some.data())
def test_yaml_there_and_back(name: str, data: some.DataObject) -> None:
    """Any valid set of knobs comes back from YAML as the same method."""
    chosen = {knob["key"]: data.draw(values(name, knob["key"])) for knob in knobs(METHODS[name])}
    try:
        made = order({"name": name, **chosen})
    except OrderError as refused:
        if re.search("belong|projection|one layer", refused.message):  # knobs that rule each other out
            return
        raise
    back = config.parse(made.to_yaml())
    assert back == made
    assert isinstance(back.method, METHODS[name])


def test_discovered_by_file() -> None:
    """One class a file, and a name in one line means the method with its defaults."""
    assert len(METHODS) == len({kind.__module__ for kind in METHODS.values()})
    for name, kind in METHODS.items():
        assert order(name).method == kind()
        assert issubclass(kind, Method)
