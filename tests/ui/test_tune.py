"""The Tune tab: the form holds every knob once, the summary never fails, form and YAML say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import cards, config, data, estimate, model, places, preflight, queue
from studio.config import RunConfig
from studio.data.order import DataOrder
from studio.device import devices
from studio.errors import OrderError
from studio.evaluation.order import EvaluationOrder
from studio.knob import GROUPS
from studio.methods import METHODS
from studio.recipes import RECIPES
from studio.resolve import resolve
from studio.tokens import Encoder
from studio.training import Training
from studio.ui import measure, recipes, tune, tune_form, words
from studio.ui.tune_summary import summary

KEYS = (
    "precision",
    "weights",
    "checkpointing",
    "packing",
    "optimizer",
    "loss",
    "attention",
    "eval_every",
    "save_every",
    "threads",
    "workers",
    "accumulation",
)


def test_every_field_has_its_knob() -> None:
    made = tune_form.form()
    assert [knob["key"] for knob in made["training"]] == list(Training.model_fields)
    assert {knob["key"] for knob in made["data"]} == set(DataOrder.model_fields) - set(tune_form.HIDDEN["data"])
    assert {knob["key"] for knob in made["evaluation"]} == set(EvaluationOrder.model_fields) - {"json_schema"}
    for method in made["methods"]:
        assert [knob["key"] for knob in method["knobs"]] == [
            key for key in METHODS[method["name"]].model_fields if key != "name"
        ]


def test_every_advanced_knob_is_in_a_group() -> None:
    made = tune_form.form()
    assert [group["name"] for group in made["groups"]] == list(GROUPS)
    sections = [made[name] for name in ("model", "data", "training", "evaluation")]
    sections += [kind["knobs"] for name in ("methods", "stages", "places") for kind in made[name]]
    for knob in (knob for knobs in sections for knob in knobs):
        assert (knob["group"] in GROUPS) == knob["advanced"], knob
    assert {knob["group"] for knob in made["training"]} == {None, *GROUPS}


def autos(form: dict, order: dict) -> set[str]:
    """The keys of the knobs whose default is auto, of the sections of an order."""
    kinds = {kind["name"]: kind["knobs"] for kind in form["methods"]}
    sections = {key: form[key] for key in ("data", "training")} | {"method": kinds[order["method"]["name"]]}
    sections |= {"evaluation": form["evaluation"]} if "evaluation" in order else {}
    place = next((kind for kind in form["places"] if kind["kind"] == order.get("place", {}).get("kind")), None)
    sections |= {"place": place["knobs"]} if place else {}
    return {f"{key}.{knob['key']}" for key, knobs in sections.items() for knob in knobs if knob["default"] == "auto"}


@pytest.mark.parametrize("method", METHODS)
def test_every_auto_tells_what_it_comes_to(home: Path, order: dict, method: str) -> None:
    order |= {"method": {"name": method}, "evaluation": {}}
    found = summary(order)
    assert found["auto"].keys() == autos(tune_form.form(), order)
    assert all(value["why"] for value in found["auto"].values())
    assert found["auto"]["training.checkpointing"]["value"] is False
    assert found["auto"]["data.format"]["value"] == found["data"]["format"]


def test_what_is_told_of_an_auto_is_what_the_run_takes(home: Path, order: dict, tiny_model: Path) -> None:
    """Against the trainer's own resolution, of which nothing is written for the page."""
    training = {"precision": "auto", "packing": "auto"}
    found, run_config = summary(order | {"training": training})["auto"], config.build(order | {"training": training})
    folder, device = measure.folder_of(run_config), devices()[0]
    prepared = data.prepare(run_config.data, Encoder.from_order(run_config.data, folder), run_config.training.seed)
    resolved = resolve(run_config, model.facts(tiny_model), device, prepared.statistics)
    names = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    assert {key: found[f"training.{key}"]["value"] for key in KEYS} == {
        "precision": names[resolved.dtype],
        "weights": names[resolved.weights],
        "checkpointing": resolved.checkpointing,
        "packing": resolved.packed,
        "optimizer": resolved.optimizer,
        "loss": resolved.loss,
        "attention": resolved.attention,
        "eval_every": resolved.eval_every,
        "save_every": resolved.save_every,
        "threads": resolved.threads,
        "workers": resolved.workers,
        "accumulation": resolved.effective // resolved.batch_size,
    }


def test_an_auto_that_is_set_tells_nothing(home: Path, order: dict) -> None:
    found = summary(order | {"training": {"max_steps": 2, "precision": "fp32", "packing": False}})["auto"]
    assert not {"training.precision", "training.packing"} & found.keys()
    assert found["training.loss"]["value"] == "chunked"
    job = summary(order | {"place": {"kind": "job", "flavor": "t4-small"}})["auto"]
    assert job["training.precision"]["value"] == "fp16"
    assert job["place.timeout"]["value"] == "30m"


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


def test_another_device_is_looked_at_and_the_order_stays(home: Path, order: dict) -> None:
    plain, rented = tune.offer({})["devices"].values()
    assert {card["name"] for card in plain} == {card.name for card in cards.CARDS}
    here = summary(order)
    for name in ("Tesla T4", "NVIDIA H100 80GB", *(one["name"] for one in rented[::4])):
        found = summary(order, other=name)
        assert found["fault"] is None
        assert found["here"]["name"] == here["device"]["name"]
        own = {key: value["value"] for key, value in here["auto"].items()}
        told = {key: value["value"] for key, value in found["auto"].items()}
        assert told == own, "what the form tells is of the order's own device"
        assert found["yaml"] == here["yaml"]
        price = next((one["price"] for one in rented if one["name"] == name), None)
        assert (found["cost"] or {"hour": None})["hour"] == price
        same = config.build(order).with_changes(place=name if price else "here")
        on = places.device_of(same.place) if price else cards.device(name)
        facts, rows = measure.facts_of(same), measure.rows_of(same)
        expected = estimate.estimate(facts, same, on, rows)
        assert (found["memory"]["total"], found["seconds"]) == (expected.total, expected.seconds)
        assert found["device"]["name"] == on.name


@pytest.mark.parametrize("name", ["a card nobody has", "job:nothing", "ssh:box", "here:", "job:"])
def test_a_device_that_is_not_on_offer_is_refused_in_words(home: Path, order: dict, name: str) -> None:
    found = summary(order, "zh", name)
    assert found["fault"] is None
    assert found["elsewhere"]["fault"]["message"]
    assert "memory" not in found


def test_settings_that_another_device_cannot_run_are_told(home: Path, order: dict) -> None:
    found = summary(order | {"method": {"name": "qlora", "quantization": "int8"}}, other="Tesla V100 16GB")
    assert "int8" in found["elsewhere"]["fault"]["message"]
    assert found["fault"] is None


def test_recipes_say_what_they_take_here(with_small_starter: Path) -> None:
    found = {recipe["name"]: recipe for recipe in recipes.recipes({})["recipes"]}
    assert found.keys() == RECIPES.keys()
    for recipe in found.values():
        order = config.build(recipe["order"])
        assert recipe["rows"] == data.read(order.data.sources()[0].source).rows
        assert recipe["local"] == (order.model.source == "starter")
    seen = summary(found["persona"]["order"])
    assert seen["fault"] is None
    assert found["persona"]["seconds"] == pytest.approx(seen["seconds"], rel=0.01)
    assert found["persona"]["total"] == pytest.approx(seen["memory"]["total"], rel=0.01)


def test_an_upload_is_deleted_unless_a_run_needs_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.queue.advance", lambda *a, **k: None)
    file, elsewhere = home / "uploads" / "rows.jsonl", home / "rows.jsonl"
    file.parent.mkdir(exist_ok=True)
    for one in (file, elsewhere):
        one.write_text('{"prompt": "a", "completion": "b"}\n')
    waits = queue.submit(config.build({"data": {"train": "sample", "eval": str(file)}}))
    with pytest.raises(OrderError, match=f"rows.jsonl is the data of {waits.id}, which has not ended"):
        tune.delete_upload(str(file))
    queue.stop(waits)
    assert tune.upload_users({"source": str(file)}) == {"runs": [waits.id]}, "ended runs are named before it goes"
    assert tune.upload_users({"source": str(elsewhere)}) == {"runs": []}
    listed = file.with_name("dataset_info.json")
    listed.write_text('{"mine": {"file_name": "rows.jsonl"}}')
    by_entry = queue.submit(config.build({"data": {"train": f"{listed}:mine"}}))
    for one in (file, listed):
        with pytest.raises(OrderError, match=f"{one.name} is the data of {by_entry.id}"):
            tune.delete_upload(str(one))
    queue.stop(by_entry)
    assert tune.delete_upload(str(file)) == {"source": str(file)}
    assert not file.exists()
    for gone in (file, elsewhere, home / "uploads"):
        with pytest.raises(OrderError, match="is no upload"):
            tune.delete_upload(str(gone))
    assert elsewhere.exists()


def test_a_choice_that_is_a_word_is_said_in_chinese() -> None:
    """What only names a method of a paper, a type or a machine stays as it is."""
    plain = {"split", "keep", "drop", "cut", "mask_empty", "replay", "frontier", "group", "batch", "identity", "near"}
    made = tune_form.form()
    sections = [made["data"], made["training"], *(kind["knobs"] for kind in [*made["methods"], *made["stages"]])]
    assert plain <= {choice for knobs in sections for knob in knobs for choice in knob.get("choices") or ()}
    assert not [choice for choice in plain if words.say(choice, "zh") == choice]
