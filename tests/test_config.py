"""The order: YAML there and back, overrides, and refusals that name the key and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from studio import config, preflight
from studio.config import RunConfig, parse
from studio.data.order import DataOrder
from studio.errors import OrderError, StudioError
from studio.methods import METHODS
from studio.training import Training

LEAST = "data: {train: rows.json}"


def test_everything_but_the_data_has_a_default() -> None:
    order = parse(LEAST)
    assert order.model.source == "starter"
    assert order.method.name == "lora"
    assert order.learning_rate == METHODS["lora"].learning_rate


@pytest.mark.parametrize("name", METHODS)
def test_there_and_back(name: str) -> None:
    order = parse(
        LEAST, [f"method.name={name}", "training.seed=7", "name='Lauf 一'", "model.revision=main", "model.source=a/b"]
    )
    again = parse(order.to_yaml())
    assert again == order
    assert again.to_yaml() == order.to_yaml()


def test_settings_change_one_key() -> None:
    order = parse(LEAST, ["method.rank=8", "training.learning_rate=1e-3", "training.epochs=1"])
    assert order.method.rank == 8
    assert order.learning_rate == 1e-3


def test_the_surface_example_is_read() -> None:
    order = parse("""
name: my-first-run
model: starter
data: {train: data.json, eval: 0.05, format: auto, template: auto, max_length: 1024, too_long: cut, train_on: assistant}
method: {name: lora, rank: 16, alpha: 32, target_modules: all-linear}
training: {epochs: 3, batch_size: 4, accumulation: 4, learning_rate: 2.0e-4, schedule: cosine, warmup: 0.03,
  precision: auto,
  checkpointing: auto, packing: auto, optimizer: auto, loss: auto, attention: auto, seed: 42, eval_every: 50,
  save_every: 50}
""")
    assert order.training.effective_batch(1000) == 16
    assert order.training.eval_every == 50


@pytest.mark.parametrize(
    ("text", "settings", "message", "hint", "where"),
    [
        (LEAST, ["method.rnak=8"], "Unknown key method.rnak", "Did you mean rank?", "method.rnak"),
        (
            LEAST,
            ["training.learnign_rate=1"],
            "Unknown key training.learnign_rate",
            "Did you mean learning_rate?",
            "training.learnign_rate",
        ),
        (LEAST, ["datta.x=1"], "Unknown key datta", "Did you mean data?", "datta"),
        (LEAST, ["data.trian=x"], "Unknown key data.trian", "Did you mean train?", "data.trian"),
        (LEAST, ["method=lorra"], "no method 'lorra'", "Did you mean lora?", "method"),
        (LEAST, ["method.rank=0"], "method.rank is 0", "", "method.rank"),
        (LEAST, ["method.rank=many"], "method.rank is 'many'", "", "method.rank"),
        (LEAST, ["training.epochs=-1"], "training.epochs is -1", "", "training.epochs"),
        (LEAST, ["training.learning_rate=1e999"], "training.learning_rate", "", "training.learning_rate"),
        (
            LEAST,
            ["data.eval=100"],
            "data.eval is 100, but should be less than or equal to 0.5, or be text.",
            "The share",
            "data.eval",
        ),
        (LEAST, ["data.train=[{source: a, weight: -1}]"], "data.train.0.weight is -1,", "", "data.train.0.weight"),
        (
            LEAST,
            ["data.train=[{source: a, wieght: 2}]"],
            "Unknown key data.train.0.wieght.",
            "mean weight",
            "data.train.0.wieght",
        ),
        (LEAST, ["method.rank"], "has no value", "--set method.rank=16", "method.rank"),
        ("model: starter", [], "data is missing", "which data", "data"),
        ("a: [", [], "is not YAML on line 1", "Check", "the order"),
        ("just words", [], "holds no keys", "train: my-data.json", "the order"),
    ],
)
def test_refusals(text: str, settings: list[str], message: str, hint: str, where: str) -> None:
    with pytest.raises(OrderError) as caught:
        parse(text, settings)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.where == where


def test_all_faults_in_one_message() -> None:
    with pytest.raises(OrderError) as caught:
        parse(LEAST, ["method.rnak=8", "training.epochs=0"])
    assert "method.rnak" in caught.value.message
    assert "training.epochs" in caught.value.message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(OrderError, match="There is no file"):
        config.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("pairs.json", '[{"prompt": "a", "chosen": "b", "rejected": "c"}]', True),
        ("rows.jsonl", '{"prompt": "a"}', True),
        ("wrapped.json", '{"data": [{"prompt": "a"}]}', True),
        ("torn.json", '[{"prompt": "\x80', True),
        ("order.json", '{"data": {"train": "x.json"}}', False),
        ("order.yaml", "data: {train: x.json}", False),
        ("order", "data: {train: x.json}", False),
    ],
)
def test_data_in_an_orders_place_are_trained_on_with_every_default(
    name: str, text: str, rows: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    order = config.load(path, ["stage=dpo"])
    assert order.data.train == (str(path) if rows else "x.json")
    assert order.stage.name == "dpo"


def test_changing_the_method_forgets_the_other_method_s_knobs() -> None:
    order = parse("data: {train: x}\nmethod: {name: lora, rank: 4}", ["method.name=full"])
    assert order.method.name == "full"


@pytest.mark.parametrize("kind", [RunConfig, Training, DataOrder, *METHODS.values()])
def test_every_setting_explains_itself(kind: type[BaseModel]) -> None:
    described = kind.model_json_schema()["properties"]
    for name, field in kind.model_fields.items():
        inner = field.annotation if isinstance(field.annotation, type) else None
        if name == "name" and kind is not RunConfig or inner and issubclass(inner, BaseModel) or name == "method":
            continue
        assert field.title, f"{kind.__name__}.{name} has no title"
        description = described[name].get("description")
        assert description, f"{kind.__name__}.{name} has no description"
        assert description.endswith((".", "?", "。")), f"{kind.__name__}.{name}: a sentence ends in a full stop"


def test_check_refuses_before_anything_is_made(home: Path, tiny_data: Path) -> None:
    for settings in (["data.train=nowhere.json"], ["model=./nowhere"], ["model=no.gguf"]):
        with pytest.raises(StudioError):
            preflight.check(parse(f"data: {{train: '{tiny_data}'}}", settings))
    assert not (home / "runs").exists()


def test_check_lets_a_good_order_pass(home: Path, tiny_data: Path, tiny_model: Path) -> None:
    preflight.check(parse(f"data: {{train: '{tiny_data}'}}\nmodel: '{tiny_model}'"))


@pytest.mark.parametrize(("rows", "gathered"), [(40, 1), (112, 1), (240, 3), (1000, 4), (100_000, 4)])
def test_small_data_gets_steps_enough(rows: int, gathered: int) -> None:
    training = parse(LEAST).training
    assert training.accumulation_steps(rows) == gathered
    assert training.effective_batch(rows) == 4 * gathered


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"data": {"train": [{"source": "sample"}] * 201}}, "201 data sets are named, and 200 can be mixed"),
        ({"method": {"name": "lora", "target_modules": ["q_proj"] * 1001}}, "1,001 layers are named"),
        ({"method": {"name": "lora", "modules_to_save": "x," * 1001}}, "1,001 layers are named"),
        ({"method": {"name": "ia3", "feedforward_modules": ["q_proj"] * 1001}}, "1,001 layers are named"),
    ],
    ids=["sources", "layers", "saved", "ia3"],
)
def test_a_list_without_measure_is_refused(section: dict, words: str) -> None:
    """A page computes with an order before anybody has paid for it: each name takes time, each file a descriptor."""
    with pytest.raises(OrderError, match=words):
        config.build({"data": {"train": "sample"}, **section})
