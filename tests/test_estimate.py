"""The estimate: exact where it can be, in order where it must be, and the published measurements met."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from studio import auto, cards, config, estimate, model
from studio.config import RunConfig
from studio.device import Device
from studio.errors import DeviceError
from studio.footprint import Footprint
from studio.forecast import duration, remedies, time_left
from studio.forecast.duration import Past
from studio.kernels import padded_width
from studio.memory import peak, studio_loop, tables
from studio.memory.states import nf4_bytes, optimizer_bytes
from studio.memory.studio_loop import RowStatistics
from studio.methods import METHODS
from studio.model import ModelFacts
from tests.bench import memory, published

A10G = cards.device("NVIDIA A10G")


def order(**sections: object) -> config.RunConfig:
    return config.build({"data": {"train": "rows.json", "max_length": 1024}, **sections})


@pytest.fixture(scope="module")
def small() -> ModelFacts:
    return tables.facts_of("Qwen/Qwen2.5-1.5B-Instruct")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_estimate(small: ModelFacts, name: str) -> None:
    made = estimate.estimate(small, order(method=name), A10G)
    assert sum(made.by_cause.values()) == made.total
    assert made.low <= made.total <= made.high
    assert made.trainable == METHODS[name]().trainable(small)
    assert set(made.explained) == set(peak.CAUSES)


def test_weights_are_the_sum_of_tensors(small: ModelFacts) -> None:
    made = estimate.estimate(small, order(method="lora"), A10G)
    assert made.by_cause["weights"] == -(-small.bytes // 512) * 512
    assert small.parameters == 1_543_714_304  # as its model card says


def test_written_answers_fill_a_micro_batch_however_long_they_may_be(small: ModelFacts) -> None:
    """Those that end early let a further one in, as `worker/batches.py` packs them."""
    rewards = [{"name": "length", "at_most": 5}]
    grouped = order(
        data={"train": "rows.json", "max_length": 1024},
        stage={"name": "grpo", "group": 4, "max_new_tokens": 64, "rewards": rewards},
        training={"batch_size": 8, "packing": True, "checkpointing": False, "precision": "fp32"},
    )
    tokens = auto.packed_tokens(grouped, A10G, 270)
    walked = peak.Walk(small, grouped, A10G, RowStatistics(64, 64 * 205, 64 * 205, 206), 1.0)(0)
    assert walked.loop.length == padded_width(tokens)


def test_four_bits_as_bitsandbytes_has_them() -> None:
    """1024 × 1024 weights: half a byte each, an absmax of a float32 per 64, or a byte per 64 and a float32 per 256 of
    those, and the tables.
    """
    assert nf4_bytes(2**20, double=False) == 2**19 + 2**14 * 4 + 64
    assert nf4_bytes(2**20, double=True) == 2**19 + 2**14 + 64 * 4 + 1024 + 4 + 64


def test_optimizers() -> None:
    shapes = {"a": (1000, 100), "b": (10,)}
    numbers = sum(prod(shape) for shape in shapes.values())
    assert optimizer_bytes(shapes, 4, "adamw_torch_fused") == 8 * numbers
    assert optimizer_bytes(shapes, 4, "adamw_bnb_8bit") == 2 * (100_000 + 391 * 4) + 2 * 40
    assert optimizer_bytes(shapes, 4, "adafactor") == 4 * (1100 + 10)
    assert optimizer_bytes(shapes, 4, "sgd") == 0


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"training": {"batch_size": 2, "packing": False}}, {"training": {"batch_size": 4, "packing": False}}),
        ({"method": {"name": "lora", "rank": 8}}, {"method": {"name": "lora", "rank": 64}}),
        ({"method": "qlora"}, {"method": "lora"}),
        ({"method": "lora"}, {"method": "full"}),
        ({"training": {"checkpointing": True}}, {"training": {"checkpointing": False}}),
        (
            {"method": {"name": "lora", "target_modules": "q-v"}},
            {"method": {"name": "lora", "target_modules": "all-linear"}},
        ),
        ({"training": {"loss": "chunked"}}, {"training": {"loss": "full"}}),
    ],
)
def test_order(small: ModelFacts, less: dict, more: dict) -> None:
    big = cards.device("NVIDIA H200")
    assert estimate.estimate(small, order(**less), big).total < estimate.estimate(small, order(**more), big).total


def test_shorter_data_takes_less(small: ModelFacts) -> None:
    full, short = (
        estimate.estimate(small, order(), A10G, RowStatistics(100, 100 * size, 60 * size, size)) for size in (1024, 128)
    )
    assert short.total < full.total
    assert short.seconds < full.seconds


def test_auto_checkpointing_turns_on_where_it_must(small: ModelFacts) -> None:
    def checkpoints(order: RunConfig, device: Device) -> bool:
        return peak.peak(small, order, device, None).loop.checkpointing

    assert not checkpoints(order(), cards.device("NVIDIA H200"))
    assert checkpoints(order(training={"batch_size": 4}), cards.device(memory="8GB"))
    assert not checkpoints(order(method="prefix"), cards.device(memory="8GB"))


ORDERS = [
    ({"method": "full"}, "6GB"),
    ({"method": "lora", "training": {"batch_size": 32, "packing": False}}, "6GB"),
    ({"method": "full", "training": {"batch_size": 8, "accumulation": 2}}, "16GB"),
    ({"method": {"name": "lora", "rank": 256}}, "4GB"),
    ({"method": "prefix", "training": {"batch_size": 16}}, "8GB"),
    ({"method": "qlora", "data": {"train": "rows.json", "max_length": 8192}}, "4GB"),
    ({"method": "adapter", "training": {"loss": "full"}}, "4GB"),
]


@pytest.mark.parametrize(("sections", "memory"), ORDERS)
@pytest.mark.parametrize("rows", [None, RowStatistics(500, 200_000, 120_000, 900)])
def test_advice_saves_what_it_says(small: ModelFacts, sections: dict, memory: str, rows: RowStatistics | None) -> None:
    device, wanted = cards.device(memory=memory), order(**sections)
    made = estimate.estimate(small, wanted, device, rows, advised=True)
    if made.fits:
        assert not made.advice
        return
    assert made.advice
    fitting = []
    for item in made.advice:
        changed = estimate.estimate(small, remedies.apply(wanted, item.change), device, rows)
        assert made.total - changed.total == item.saves > 0, item.text
        fitting.append(changed.fits)
    assert fitting == sorted(fitting, reverse=True), "what makes it fit stands first"


def test_what_is_proposed_works_when_followed(small: ModelFacts) -> None:
    """transformers checkpoints no jetmoe, and 200 positions take no row of 256 tokens."""
    odd = small.model_copy(update={"model_type": "jetmoe", "max_position_embeddings": 200})
    made = estimate.estimate(odd, order(training={"batch_size": 8}), cards.device(memory="4GB"), advised=True)
    assert made.advice
    assert not [item for item in made.advice if "training.checkpointing" in item.change]
    assert estimate.estimate(odd, order(), cards.device(memory="80GB"), advised=True).limits["max_length"] == 192


@pytest.mark.parametrize(
    ("sections", "memory"), [*ORDERS, ({}, "12GB"), ({"training": {"accumulation": 1}, "method": "full"}, "40GB")]
)
def test_limits_are_the_last_that_fit(small: ModelFacts, sections: dict, memory: str) -> None:
    device, wanted = cards.device(memory=memory), order(**sections)
    limits = estimate.estimate(small, wanted, device, advised=True).limits
    for dotted, step, top in (
        ("training.batch_size", 1, 256),
        ("data.max_length", 64, small.max_position_embeddings or 8 * wanted.data.max_length),
    ):
        limit = limits[dotted.rpartition(".")[2]]
        least = {"training.batch_size": 1, "data.max_length": 64}[dotted]
        if limit is None:
            assert not estimate.estimate(small, remedies.apply(wanted, {dotted: least}), device).fits
            continue
        assert estimate.estimate(small, remedies.apply(wanted, {dotted: limit}), device).fits
        for beyond in (limit + step, 2 * limit):
            if beyond <= top:
                assert not estimate.estimate(small, remedies.apply(wanted, {dotted: beyond}), device).fits


@pytest.mark.parametrize("by", [0.85, 1.1])
def test_runs_seen_correct_the_estimate(small: ModelFacts, by: float) -> None:
    """All but the context, which no run changes; and checkpointing is settled by the corrected figure."""
    wanted = order(training={"checkpointing": True})
    plain, corrected = (estimate.estimate(small, wanted, A10G, past=Past(one)) for one in (1.0, by))
    assert corrected.total - corrected.context == pytest.approx(by * (plain.total - plain.context), rel=1e-6)
    assert sum(corrected.by_cause.values()) == corrected.total
    assert min(corrected.by_cause.values()) >= 0


def test_time_left() -> None:
    assert time_left.left(0, 100, 0.0, 2.0) == 200
    assert time_left.left(5, 100, 15.0, 2.0) == 95 * 3  # after a twentieth, what was seen
    assert time_left.left(100, 100, 300.0, 2.0) == 0


def test_time_left_of_a_running_run() -> None:
    """100 steps of 2 s, the first two of 10 s, an evaluation of 5 s every tenth and a saving of 1 s every twentieth."""
    plan = {"steps": 100, "eval_every": 10, "save_every": 20, "expected": {"seconds_per_step": 3.0}}
    now, times, pauses, whole = 0.0, [], [], []
    for step in range(1, 101):
        now += 10 if step <= 2 else 2
        times.append(now)
        for name, every, seconds in (("evaluating", 10, 5.0), ("saving", 20, 1.0)):
            if step % every == 0:
                pauses.append(time_left.Pause(name, now, now + seconds))
                now += seconds
        whole.append(now)
    assert time_left.remaining([], [], [], plan) == 300
    expecting = plan | {"expected": {**plan["expected"], "pauses": {"evaluating": 5.0, "saving": 1.0}}}
    assert time_left.remaining([], [], [], expecting) == 300 + 10 * 5 + 5 * 1
    assert time_left.remaining([12], [45.0], [time_left.Pause("evaluating", 36.0, 46.0)], expecting) == pytest.approx(
        time_left.remaining([12], [45.0], [time_left.Pause("evaluating", 36.0, 46.0)], plan) + 5 * 1
    )
    for step in (12, 25, 50, 90, 99):
        known = [pause for pause in pauses if pause.ended <= whole[step - 1]]
        told = time_left.remaining(range(1, step + 1), times[:step], known, plan)
        assert told == pytest.approx(whole[-1] - whole[step - 1], rel=0.1, abs=6), step
    assert time_left.remaining(range(1, 101), times, pauses, plan) == 0
    assert time_left.remaining([], [], [], {"steps": 10}) is None


def test_published_measurements() -> None:
    rows = published.rows()
    told = memory.summary(rows)
    assert told["cases"] >= 50
    assert told["median"] <= 0.02
    assert told["p95"] <= 0.08
    assert all("error" in row or row["why"] for row in rows)


@pytest.mark.parametrize("card", cards.CARDS, ids=lambda card: card.name)
def test_every_card_is_found_by_its_name(card: cards.Card) -> None:
    assert cards.find(card.name, card.memory) == card


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("h100", "NVIDIA H100 80GB"),
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada"),
        ("Tesla V100-SXM2-32GB", "Tesla V100 32GB"),
        ("RTX 4070 Ti SUPER", "NVIDIA GeForce RTX 4070 Ti SUPER"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB"),
    ],
)
def test_names_as_people_and_drivers_write_them(name: str, meant: str) -> None:
    assert cards.device(name).name == meant


GEFORCE = {
    "RTX 3060": 12.74,
    "RTX 3060 Ti": 16.2,
    "RTX 3070": 20.31,
    "RTX 3070 Ti": 21.75,
    "RTX 3080": 29.77,
    "RTX 3080 Ti": 34.1,
    "RTX 3090": 35.58,
    "RTX 3090 Ti": 40.0,
    "RTX 4060": 15.11,
    "RTX 4060 Ti": 22.06,
    "RTX 4070": 29.15,
    "RTX 4070 SUPER": 35.48,
    "RTX 4070 Ti": 40.09,
    "RTX 4070 Ti SUPER": 44.1,
    "RTX 4080": 48.74,
    "RTX 4080 SUPER": 52.22,
    "RTX 4090": 82.58,
    "RTX 5060 Ti": 23.7,
    "RTX 5070": 30.87,
    "RTX 5070 Ti": 43.94,
    "RTX 5080": 56.28,
    "RTX 5090": 104.8,
}  # float32 TFLOP/s


@pytest.mark.parametrize("name", GEFORCE)
def test_a_geforce_multiplies_16_bits_at_twice_its_float32_speed(name: str) -> None:
    """NVIDIA's white papers on GA102, AD102 and GB202: dense, with float32 accumulation, which training takes; half of
    that with 16 bits.
    """
    assert cards.find(name).speed == pytest.approx(2e12 * GEFORCE[name], rel=0.05)


def test_a_slice_has_its_share_of_the_speed() -> None:
    whole = cards.device("NVIDIA H100 80GB")
    slice = whole.model_copy(update={"name": "NVIDIA H100 80GB HBM3 MIG 2g.20gb"})
    assert duration.speed(slice, 2).rate == pytest.approx(duration.speed(whole, 2).rate * 2 / 7)


def test_a_card_of_the_same_number_is_another_card() -> None:
    assert cards.find("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    with pytest.raises(DeviceError) as told:
        cards.device("RTX 4090 Laptop")
    assert "RTX 4090" in told.value.hint


@pytest.mark.parametrize(
    ("text", "gib"),
    [("24GB", 24), ("24 GiB", 24), ("24g", 24), ("24", 24), ("16384MB", 16), ("1.5TB", 1536), (25769803776, 24)],
)
def test_sizes(text: str | int, gib: int) -> None:
    assert cards.size_of(text) == gib * 2**30


def test_devices_by_name_and_memory() -> None:
    assert cards.device("A10G").capability == (8, 6)
    assert cards.device("NVIDIA A100-SXM4-80GB").name == "NVIDIA A100 80GB"
    assert cards.device(memory="24GB").memory == 24 * 2**30
    with pytest.raises(DeviceError, match="Tesla T5"):
        cards.device("Tesla T5")
    with pytest.raises(DeviceError, match="no amount"):
        cards.device(memory="much")


def test_the_page_on_memory_is_made_by_the_estimate() -> None:
    text = tables.page()
    assert "| weights | 0.00 | 14.96 |" in text
    assert "tutorials" in text


def test_a_folder_with_only_a_config(tmp_path: Path, home: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(json.loads(tables.MODELS.read_text())["Qwen/Qwen2.5-1.5B-Instruct"])
    )
    made = model.facts_of(config.build({"data": {"train": "x.json"}, "model": str(tmp_path)}).model)
    assert made.parameters == 1_543_714_304


def test_a_piece_holds_no_more_than_a_step_has(processor: Device) -> None:
    """Four rows of 82 tokens fill no piece of 768: the bundled sample ended at 1.64 GiB in float32 after six steps, and
    in bf16 at 1.36 after fourteen.
    """
    order = config.build({"data": {"train": "sample"}, "training": {"batch_size": 4, "accumulation": 1}})
    facts = model.facts_of(order.model)
    few, many = (
        estimate.estimate(facts, one, processor, RowStatistics(87, 6270, 2988, 82, 5))
        for one in (order, order.model_copy(update={"training": order.training.model_copy(update={"accumulation": 4})}))
    )
    assert few.total == pytest.approx(1_464_156_160 if processor.bf16 else 1_757_462_528, rel=0.1)
    assert few.by_cause["activations"] < 0.6 * many.by_cause["activations"]


def test_rows_that_fill_a_micro_batch_make_one(processor: Device) -> None:
    """Not a second one of nothing, beside whose gradients the first would have to fit."""
    facts = tables.facts_of("HuggingFaceTB/SmolLM2-135M")
    full = order(
        data={"train": "rows.json", "max_length": 512, "eval": 0},
        method="full",
        training={"batch_size": 2, "accumulation": 1},
    )
    exact = studio_loop.studio_loop(full, facts, processor, RowStatistics(4, 2048, 2000, 512), Footprint(), 30)
    assert (exact.length, exact.accumulates, exact.last_length) == (1024, False, 0)


def test_the_starter_is_tuned_in_full_on_a_laptop_of_8_gb() -> None:
    """Its largest measured peak there, over 66 steps of rows of unlike lengths, was 3.32 GiB in bf16."""
    laptop = Device(kind="cpu", name="a laptop", memory=8 * 10**9, free=5 * 10**9, bf16=True, cores=2)
    order = config.build({"data": {"train": "sample"}, "method": "full"})
    facts = model.facts_of(order.model)
    assert estimate.estimate(facts, order, laptop, None).fits
    known = estimate.estimate(facts, order, laptop, RowStatistics(87, 6262, 2981, 82, 5))
    assert 3.33 * 2**30 < known.high < 4 * 2**30
