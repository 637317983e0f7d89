"""The noun: a stage in an order, from YAML and back, in help and tables."""

from __future__ import annotations

import json

import pytest

from studio import config
from studio.__main__ import main
from studio.data.formats import formats
from studio.errors import OrderError
from studio.methods import METHODS
from studio.stage import EXAMPLES, METRICS
from studio.stages import STAGES

DATA = {"data": {"train": "x.json"}}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_what_form_and_help_need(name: str) -> None:
    stage = STAGES[name]()
    assert stage.name == name
    assert stage.examples in EXAMPLES
    assert set(stage.metrics) <= set(METRICS)
    for field in type(stage).model_json_schema()["properties"].values():
        assert field["title"]
        assert field["description"]
    kinds = {getattr(form, "EXAMPLES", "answers") for form in formats().values()}
    assert stage.examples in kinds


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("written", ["word", "section"])
def test_an_order_keeps_its_stage(name: str, written: str) -> None:
    order = config.build({**DATA, "stage": name if written == "word" else {"name": name}})
    again = config.parse(order.to_yaml())
    assert again.stage == order.stage == STAGES[name]()
    assert again.data.examples == STAGES[name].examples
    assert again.with_changes(training={"batch_size": 2}).data.examples == STAGES[name].examples
    assert order.learning_rate == pytest.approx(METHODS["lora"].learning_rate * STAGES[name].rate_scale)


def test_left_out_it_is_sft_and_not_written() -> None:
    order = config.build(DATA)
    assert order.stage.name == "sft"
    assert "stage" not in order.to_yaml()


@pytest.mark.parametrize(
    ("stage", "message", "hint"),
    [
        ("dop", "no stage 'dop'", "Did you mean dpo"),
        ("ppo", "no stage 'ppo'", "Stages: sft"),
        ({"beta": 1}, "stage has no name", "name: dpo"),
        ({"name": "dpo", "bta": 1}, "Unknown key stage.bta", "Did you mean beta"),
        ({"name": "sft", "beta": 1}, "Unknown key stage.beta", ""),
        ({"name": "dpo", "loss": "simpel"}, "stage.loss", ""),
        ({"name": "dpo", "label_smoothing": 0.7}, "less than 0.5", ""),
        ({"name": "dpo", "loss": "ipo", "label_smoothing": 0.1}, "label_smoothing goes with", ""),
        ({"name": "dpo", "loss": "robust"}, "needs label_smoothing", ""),
        ({"name": "dpo", "gamma": 1}, "margin of loss simpo", ""),
        ({"name": "kto", "beta": 0}, "greater than 0", ""),
    ],
)
def test_what_is_wrong_is_said(stage: object, message: str, hint: str) -> None:
    with pytest.raises(OrderError) as caught:
        config.build({**DATA, "stage": stage})
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.where.startswith("stage")


def test_settings_by_set() -> None:
    text = "data: {train: x.json}\nstage: dpo"
    assert config.parse(text, ["stage.beta=0.3"]).stage.beta == 0.3
    assert config.parse(text, ["stage=orpo"]).stage.name == "orpo"
    assert config.parse(text, ["stage.beta=0.3", "stage.name=kto"]).stage == STAGES["kto"]()


def test_the_terminal_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stages", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in told] == list(STAGES)
    for stage in told:
        assert {*stage["methods"], *stage["not_with"]} == set(METHODS)
        assert {knob["key"] for knob in stage["knobs"]} == set(STAGES[stage["name"]].model_fields) - {"name"}
    assert main(["stages", "dpo"]) == 0
    assert "arXiv 2305.18290" in capsys.readouterr().out
    assert main(["stages", "dop"]) == 2


def test_what_a_stage_costs() -> None:
    """Two sequences a row and the reference's passes are in time and memory; cached, the reference costs once."""
    from studio import cards
    from studio.estimate import estimate
    from studio.memory import tables
    from studio.memory.studio_loop import RowStatistics

    facts, card = tables.facts_of("Qwen/Qwen2.5-0.5B-Instruct"), cards.device("NVIDIA A10G")
    single, pair = RowStatistics(1000, 200_000, 80_000, 512), RowStatistics(1000, 400_000, 160_000, 1024)

    def costs(stage: object, method: str = "lora", **training: object) -> tuple[float, int]:
        order = config.build({**DATA, "stage": stage, "method": method, "training": {"forgetting": False, **training}})
        made = estimate(facts, order, card, single if order.stage.sequences == 1 else pair)
        return made.seconds_per_step, made.total

    sft, dpo, free = costs("sft"), costs("dpo"), costs({"name": "dpo", "reference_free": True})
    assert 1.6 * sft[0] < free[0] < dpo[0] < 4 * sft[0]
    assert dpo[1] == free[1] > sft[1]
    assert costs("kto")[0] > 1.8 * sft[0]
    assert costs("dpo", "full")[0] == costs({"name": "dpo", "reference_free": True}, "full")[0]
    assert costs("reward")[1] <= free[1]
    assert costs("dpo", packing=False)[1] > costs("sft", packing=False)[1]
    assert (
        estimate(facts, config.build({**DATA, "stage": "dpo"}), card).total
        > estimate(facts, config.build(DATA), card).total
    )
