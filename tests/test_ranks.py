"""What a rank of several holds, against numbers counted by hand."""

from __future__ import annotations

import pytest

from studio import cards, config, estimate
from studio.device import Device
from studio.memory import tables
from studio.memory.studio_loop import RowStatistics

MODEL = "meta-llama/Llama-3.1-8B"
LAYER = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 2 * 4096  # q, o; k, v; gate, up, down; two norms
TABLE = 128_256 * 4096
WEIGHTS = 32 * LAYER + 2 * TABLE + 4096
LORA = 16 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))  # rank 16, all linears
CARD = cards.device("NVIDIA A100 80GB")


def made(method: str, device: Device = CARD, **training: object) -> estimate.Estimate:
    settings = {"checkpointing": True, "optimizer": "adamw", "accumulation": 32, **training}
    order = config.build({"data": {"train": "x.json", "max_length": 1024}, "method": method, "training": settings})
    return estimate.estimate(tables.facts_of(MODEL), order, device, RowStatistics(1000, 1_000_000, 700_000, 1024))


def test_the_model_counted_by_hand() -> None:
    facts = tables.facts_of(MODEL)
    assert facts.parameters == WEIGHTS
    assert made("lora").trainable == LORA


def test_ddp_holds_the_whole_model_and_buckets_of_its_gradients() -> None:
    alone, four = made("lora"), made("lora", devices=4, sharding="ddp")
    assert four.by_cause["weights"] == alone.by_cause["weights"] == pytest.approx(2 * WEIGHTS, rel=1e-6)
    assert four.by_phase["optimizer"] - alone.by_phase["optimizer"] == pytest.approx(
        4 * LORA, rel=0.02
    )  # the buckets, a float32 a trained number
    assert (four.processes, four.sharding, [rank["rank"] for rank in four.by_rank]) == (4, "ddp", [0, 1, 2, 3])
    assert {rank["total"] for rank in four.by_rank} == {four.total}


def test_fsdp_holds_a_part_of_all_that_stands() -> None:
    four = made("full", devices=4, sharding="fsdp")
    assert four.by_cause["trained"] == pytest.approx(WEIGHTS, rel=1e-6)  # 4 bytes by 4 devices
    assert four.by_cause["optimizer"] == pytest.approx(2 * WEIGHTS, rel=1e-6)
    together = (
        2 * (2 * TABLE + 4096) + 2 * 2 * LAYER + LAYER * (2 + 2 * 4)
    )  # tables and norm, two layers in 16 bits; gradients, and two float32 copies
    assert four.by_phase["forward"] - four.by_phase["load"] >= together
    assert four.total < made("full").total / 3


def test_fsdp_leaves_the_scales_of_four_bits_whole() -> None:
    alone, four = made("qlora"), made("qlora", devices=4, sharding="fsdp")
    packed = 32 * (LAYER - 2 * 4096)
    scales = packed / 64 + packed / 64 / 64  # a byte per 64, a float32 per 256 of them
    assert four.by_cause["weights"] == pytest.approx(scales + (alone.by_cause["weights"] - scales) / 4, rel=2e-3)


def test_auto_splits_where_a_copy_would_fill_two_thirds() -> None:
    assert made("full", devices=8).sharding == "fsdp"
    assert made("lora", devices=8).sharding == "ddp"
    assert made("lora").sharding is None


def test_processes_on_a_cpu_share_its_ram() -> None:
    here = Device(kind="cpu", name="a CPU", memory=64 * 2**30, free=64 * 2**30, bf16=True, cores=8)
    one, two = made("lora", here), made("lora", here, devices=2)
    assert one.fits
    assert two.headroom == pytest.approx(1 - 2 * two.high / here.free, abs=1e-3)
