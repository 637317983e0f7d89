"""Every preset is a whole order that is valid, that is another than the default says, and that the form can undo."""

from __future__ import annotations

import pytest

from studio.config import RunConfig, build, parse
from studio.presets import PRESETS, TOUCHED, applied

ORDER = {"name": "mine", "model": "starter", "data": {"train": "sample", "max_length": 512}, "training": {"seed": 7}}


@pytest.mark.parametrize("name", PRESETS)
def test_becomes_an_order(name: str) -> None:
    order = build(applied(name, ORDER))
    assert order.name == "mine"
    assert order.data.max_length == 512
    assert order.training.seed == 7
    assert parse(order.to_yaml()) == order
    preset = PRESETS[name]
    assert preset.label
    assert preset.about.endswith((".", ";"))
    for section, keys in preset.patch.items():
        for key, value in keys.items():
            assert getattr(getattr(order, section), key) == value


def test_presets_differ_and_leave_nothing_behind() -> None:
    orders = {name: build(applied(name, ORDER)) for name in PRESETS}
    assert len({order.to_yaml() for order in orders.values()}) == len(PRESETS)
    for first in PRESETS:
        for second in PRESETS:
            assert build(applied(second, applied(first, ORDER))) == orders[second]


def test_touched_names_every_training_key() -> None:
    assert {key for preset in PRESETS.values() for key in preset.patch.get("training", {})} <= set(TOUCHED)
    assert set(TOUCHED) <= set(RunConfig.model_fields["training"].annotation.model_fields)


def test_original_untouched() -> None:
    before = {"data": {"train": "sample"}, "training": {"epochs": 9}}
    applied("quick", before)
    assert before == {"data": {"train": "sample"}, "training": {"epochs": 9}}
