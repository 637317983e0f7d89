"""The Tune tab: the form holds every knob once, the summary never fails, form and YAML say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import config, preflight
from studio.config import RunConfig
from studio.data.order import DataOrder
from studio.evaluation.order import EvaluationOrder
from studio.methods import METHODS
from studio.training import Training
from studio.ui import tune, tune_form
from studio.ui.tune_summary import summary


def test_every_field_has_its_knob() -> None:
    made = tune_form.form()
    assert [knob["key"] for knob in made["training"]] == list(Training.model_fields)
    assert {knob["key"] for knob in made["data"]} == set(DataOrder.model_fields) - set(tune_form.HIDDEN["data"])
    assert {knob["key"] for knob in made["evaluation"]} == set(EvaluationOrder.model_fields) - {"json_schema"}
    for method in made["methods"]:
        assert [knob["key"] for knob in method["knobs"]] == [
            key for key in METHODS[method["name"]].model_fields if key != "name"
        ]


@pytest.mark.parametrize("model", [Training, DataOrder, EvaluationOrder, *METHODS.values()])
def test_every_knob_has_a_title_and_a_sentence(model: type) -> None:
    for knob in tune_form.knobs(model, ("name",)):
        assert knob["title"] != knob["key"]
        assert knob["help"].endswith((".", ")")), knob
        assert knob["kind"] in ("switch", "choice", "integer", "number", "text", "list")
        assert knob["default"] is None or knob["kind"] != "choice" or knob["default"] in knob["choices"]


def test_bounds_and_words_come_from_the_field() -> None:
    knobs = {knob["key"]: knob for knob in tune_form.knobs(Training)}
    assert knobs["batch_size"]["least"] == 1
    assert knobs["batch_size"]["most"] == 1024
    assert knobs["checkpointing"]["choices"] == ["auto", True, False]
    assert knobs["eval_every"]["auto"]
    assert knobs["learning_rate"]["empty"]
    assert knobs["seed"]["advanced"]
    assert not knobs["epochs"]["advanced"]


def test_a_fresh_page_is_ready_to_start(with_small_starter: Path) -> None:
    first = tune.offer({})["first"]
    assert first["data"]["train"].startswith("sample:")
    found = tune.look({"order": first, "lang": "en"})
    assert found["fault"] is None
    assert found["missing"] is None
    preflight.check(config.build(first))


def test_summary_of_an_order(home: Path, order: dict) -> None:
    found = summary(order)
    assert found["fault"] is None
    assert found["data"]["train"] + found["data"]["held"] == 40
    assert found["steps"] == 2
    assert found["trainable"] > 0
    assert 0 < found["share"] < 1
    assert found["memory"]["total"] == sum(found["memory"]["by_cause"].values())
    assert found["memory"]["low"] <= found["memory"]["total"] <= found["memory"]["high"]
    assert set(found["memory"]["explained"]) == set(found["memory"]["by_cause"])
    assert [row["method"] for row in found["seven"]] == ["full", "lora", "qlora"]
    assert found["record"]["runs"] == 0


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"training": {"batch_size": 0}}, "training.batch_size"),
        ({"training": {"batch_size": "many"}}, "training.batch_size"),
        ({"training": {"batchsize": 2}}, "training.batchsize"),
        ({"method": {"name": "lorra"}}, "method"),
        ({"method": {"name": "lora", "rank": -1}}, "method.rank"),
        ({"data": {"train": "nowhere.json"}}, "data.train"),
        ({"model": "./nowhere"}, "model"),
        ({"method": {"name": "lora", "rank": 4, "target_modules": "nosuch"}}, "method.target_modules"),
    ],
)
def test_what_does_not_fit_is_said_in_words(home: Path, order: dict, change: dict, where: str) -> None:
    found = summary(order | change)
    assert found["fault"]["message"]
    assert (found["fault"]["where"] or "").startswith(where.split(".")[0])
    assert summary(order | change, "zh")["fault"]["message"]


@pytest.mark.parametrize("order", [None, 7, {}, {"data": {}}, {"data": {"train": ""}}, {"data": None}])
def test_no_data_is_what_is_missing(home: Path, order: object) -> None:
    assert summary(order)["missing"] == "data"


def test_form_to_yaml_and_back_loses_nothing(home: Path, order: dict) -> None:
    full = order | {
        "name": "mine",
        "data": order["data"]
        | {"problems": {"duplicate": "drop"}, "mapping": {"prompt": "instruction", "answer": "output"}},
        "training": {"epochs": 2.5, "sample_prompts": ["Hello?", "Who?"], "learning_rate": 3e-4, "checkpointing": True},
    }
    text = tune.write({"order": full})["yaml"]
    back = tune.read({"yaml": text})["order"]
    assert config.build(back) == config.build(full)
    assert tune.write({"order": back})["yaml"] == text


def test_yaml_that_does_not_fit_says_so() -> None:
    assert "rank" in tune.read({"yaml": "data: {train: sample}\nmethod: {name: lora, rnak: 3}"})["error"]["hint"]
    assert tune.read({"yaml": "a: [1"})["error"]["message"]
    assert tune.read({})["error"]["message"]
    assert "rnak" in tune.write({"order": {"data": {"train": "x"}, "method": {"name": "lora", "rnak": 3}}})["yaml"]


def test_presets_change_the_order(home: Path, order: dict) -> None:
    for preset in tune.offer({})["presets"]:
        assert isinstance(config.build(tune.preset({"order": order, "name": preset["name"]})["order"]), RunConfig)
    assert tune.preset({"order": order, "name": "none such"})["order"] == order


def test_a_place_has_its_knobs_its_device_and_its_price(home: Path, order: dict) -> None:
    places = {place["kind"]: place for place in tune_form.form()["places"]}
    assert list(places) == ["here", "job", "ssh"]
    assert [knob["key"] for knob in places["ssh"]["knobs"]] == ["host", "port", "python", "folder"]
    found = summary(order | {"place": {"kind": "job", "flavor": "l4x1"}})
    assert found["fault"] is None
    assert found["device"]["name"] == "NVIDIA L4"
    assert found["memory"]["total"] > 0
    assert found["cost"]["hour"] == 0.80
    assert found["cost"]["run"] == pytest.approx(0.80 * found["seconds"] / 3600, abs=1e-3)
    unknown = summary(order | {"place": {"kind": "ssh", "host": "gpu-box"}})
    assert unknown["fault"] is None
    assert unknown["device"] is None
    assert "memory" not in unknown
    assert "place.host" in summary(order | {"place": {"kind": "ssh"}})["fault"]["where"]
