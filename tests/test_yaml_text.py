"""YAML by hand: a key that stands twice is refused with both lines, at every depth and by every way an order comes
in.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from studio import config, yaml_text
from studio.errors import OrderError
from tests.conftest import terminal

TWICE = {
    "data: {train: sample}\nmethod: lora\nmethod: full\n": ("method", 2, 3),
    "data:\n  train: sample\n  train: other.json\n": ("train", 2, 3),
    "data: {train: sample}\ntraining:\n  seed: 1\n  epochs: 2\n  'seed': 2\n": ("seed", 3, 5),
    '{"data": {"train": "sample"},\n "data": {"train": "x"}}': ("data", 1, 2),
    "data:\n  train: sample\n  problems: {empty: drop, empty: keep}\n": ("empty", 3, 3),
    "data:\n  train: [{source: a,\n    source: b}]\n": ("source", 2, 3),
    "data: {train: sample, mapping: {1: a, 0x1: b}}\n": ("1", 1, 1),
    "? data\n: {train: sample}\n? data\n: {train: x}\n": ("data", 1, 3),
}


@pytest.mark.parametrize("text", TWICE)
def test_a_key_twice_is_refused_with_both_lines(text: str) -> None:
    key, first, second = TWICE[text]
    with pytest.raises(OrderError) as refused:
        config.parse(text)
    assert f"The key {key} stands twice, on line {first} and on line {second}." in refused.value.message
    assert yaml.safe_load(text), "YAML itself takes the later one"


def test_what_stands_once_is_read_as_yaml_reads_it() -> None:
    text = "a: &x {k: 1}\nb: {<<: *x, k: 2}\nc: [{k: 1}, {k: 2}]\nd: {k: {k: 1}}\n"
    assert yaml_text.read(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    ["x: " + "[" * 190_000, "- " * 90_000, "{a: " * 40_000, "a: [", "\x07", "a: b: c", "{[1]: 2, [1]: 3}"],
    ids=range(7),
)
def test_what_is_no_yaml_is_refused_in_words(text: str) -> None:
    with pytest.raises(OrderError) as refused:
        yaml_text.read(text)
    assert refused.value.message


def test_the_terminal_refuses_it_too(home: Path, tmp_path: Path) -> None:
    order = tmp_path / "order.yaml"
    order.write_text("data: {train: sample}\nname: a\nname: b\n")
    plain = tmp_path / "plain.yaml"
    plain.write_text("data: {train: sample}\n")
    for given in (
        ["train", str(order), "--json"],
        ["estimate", str(order), "--json"],
        ["estimate", str(plain), "--set", "training={seed: 1, seed: 2}", "--json"],
    ):
        done = terminal(given, home)
        assert done.returncode == 2, done.stderr
        assert "stands twice" in json.loads(done.stdout)["error"]["message"]
