"""What a run does on a card, as far as a computer without one shows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import environment
from transformers import AutoModelForCausalLM

from studio import cards, config, model
from studio.errors import OrderError, StudioError
from studio.estimate import estimate
from studio.memory import studio_loop
from studio.resolve import resolve
from studio.worker import attention, base_model, distributed, probe, train
from studio.worker.adamw import RoundedAdamW
from studio.worker.report import Report
from tests import tiny
from tests.bench import peer
from tests.bench import train as bench

T4, L4 = cards.device("Tesla T4"), cards.device("L4")


def order(method: str = "lora", **training: Any) -> config.RunConfig:
    return config.build({"data": {"train": "none.json"}, "method": method, "training": training})


# -- several cards: each process takes its own first thing


def test_a_rank_takes_its_card_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    done: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: done.append(number))
    monkeypatch.setattr(environment, "get_gpu_info", lambda: (["NVIDIA GeForce RTX 4090"] * 2, 2))
    monkeypatch.setattr(environment, "get_driver_version", lambda: "535.183.01")
    for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(train.process, "die_with_parent", lambda pid: None)
    monkeypatch.setattr(train, "Report", lambda *given: SimpleNamespace(run_to_exit_code=lambda work: work()))
    monkeypatch.setattr(train, "train", lambda *given: done.append("train"))
    train.main(SimpleNamespace(config=order()))
    assert done == [1, "train"]
    assert os.environ["NCCL_P2P_DISABLE"] == os.environ["NCCL_IB_DISABLE"] == "1"


# -- attention


@pytest.mark.parametrize("packed", [True, False])
def test_shared_keys_are_copied_where_only_flash_reads_them_shared(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below Ampere, and in float32 anywhere, SDPA with enable_gqa would form heads · n² numbers."""
    given: list[tuple[int, int, bool]] = []

    def kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any) -> torch.Tensor:
        given.append((query.shape[1], key.shape[1], more["enable_gqa"]))
        return query

    monkeypatch.setattr(attention, "scaled_dot_product_attention", kernel)
    query, key = torch.empty(1, 4, 10, 8, device="meta"), torch.empty(1, 2, 10, 8, device="meta")
    where = (
        {"cu_seq_lens_q": torch.empty(3, dtype=torch.int32, device="meta"), "row_starts": [0, 4, 10], "max_length_q": 6}
        if packed
        else {}
    )
    out, _ = attention.packed_attention(None, query, key, key, None, **where)
    assert out.shape == (1, 10, 4, 8)
    assert out.device.type == "meta"
    assert given == [(4, 4, False)] * (2 if packed else 1)


def test_copied_keys_give_what_shared_ones_give() -> None:
    query, key, value = (torch.randn(1, heads, 12, 8) for heads in (4, 2, 2))
    shared = attention._causal(query, key, value, 0.3, 0.0)
    copied = attention._causal(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), 0.3, 0.0)
    torch.testing.assert_close(shared, copied)


def test_the_estimate_follows_the_kernel(tmp_path: Path) -> None:
    """Keys that are copied out take memory; squares of scores are formed nowhere."""
    facts = model.facts(tiny.write(tmp_path / "tiny", hidden=128, heads=8, kv_heads=2))
    rows = studio_loop.RowStatistics(100, 40000, 30000, 500)
    found = {}
    for name, card, precision in (("T4", T4, "fp16"), ("L4", L4, "fp16"), ("L4, float32", L4, "fp32")):
        found[name] = studio_loop.studio_loop(
            order(precision=precision), facts, card, rows, order().method.footprint(facts), False
        )
        assert found[name].repeats_kv == (name != "L4")
        assert found[name].attention == "packed"
    taken = {
        name: estimate(facts, order(precision="fp16"), card, rows).by_cause["activations"]
        for name, card in (("T4", T4), ("L4", L4))
    }
    assert taken["L4"] < taken["T4"] < 2 * taken["L4"]


# -- the optimizer of auto


def test_qlora_pages_its_optimizer_only_where_memory_is_short(tmp_path: Path) -> None:
    facts = model.facts(tiny.write(tmp_path / "tiny"))
    statistics = {"rows": 100, "tokens": 3000, "trained": 2000, "max": 40}
    assert resolve(order("qlora"), facts, L4, statistics).optimizer == "adamw_torch_fused"
    short = L4.model_copy(update={"free": 10_000_000})
    assert resolve(order("qlora"), facts, short, statistics).optimizer == "paged_adamw_8bit"
    assert resolve(order("qlora", optimizer="adamw"), facts, short, statistics).optimizer == "adamw_torch_fused"
    assert resolve(order("lora"), facts, short, statistics).optimizer == "adamw_torch_fused"


# -- the probe


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda ones: torch.optim.AdamW(ones, lr=0.1, weight_decay=0.1, fused=True),
    "sgd": lambda ones: torch.optim.SGD(ones, lr=0.1, momentum=0.9),
    "rmsprop": lambda ones: torch.optim.RMSprop(ones, lr=0.1),
    "rounding": lambda ones: RoundedAdamW(ones, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_probe_makes_the_optimizers_states_and_leaves_nothing(name: str) -> None:
    weight = torch.nn.Parameter(torch.randn(7, dtype=torch.bfloat16 if name == "rounding" else torch.float32))
    before, optimizer = weight.detach().clone(), OPTIMIZERS[name]([weight])
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    with probe.optimizer_dry_run(optimizer) as step:
        weight.grad = torch.full_like(weight, float("inf"))
        step()
        assert optimizer.state[weight]
    assert torch.equal(weight, before)
    assert not optimizer.state
    assert [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ] == settings


def test_states_that_a_resume_brought_stay() -> None:
    weight = torch.nn.Parameter(torch.randn(7))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = {name: value.clone() for name, value in optimizer.state[weight].items()}
    with probe.optimizer_dry_run(optimizer) as step:
        step()
    assert all(torch.equal(optimizer.state[weight][name], value) for name, value in kept.items())


# -- fp16


def test_fp16_that_overflows_is_seen_and_float32_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.write(tmp_path / "large")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weight * (3000 if "mlp" in name else 1) for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    rows = [{"input_ids": list(range(5, 40)), "labels": list(range(5, 40))}]
    resolved = resolve(
        order(precision="fp16"), model.facts(folder), T4, {"rows": 100, "tokens": 3000, "trained": 2000, "max": 40}
    )
    resolved = resolved._replace(device="cpu")
    assert resolved.dtype == "float16"
    prepared = SimpleNamespace(train=SimpleNamespace(first=lambda count: rows))
    notes: list[str] = []
    report = SimpleNamespace(precision=None, note=lambda text, level: notes.append(text))
    with pytest.raises(OrderError, match="beyond what fp16 holds"):
        base_model.load_in_finite_precision(order(precision="fp16"), resolved, folder, prepared, report)
    found, _, tuned = base_model.load_in_finite_precision(order(), resolved, folder, prepared, report)
    assert (found.dtype, found.autocast, report.precision) == ("float32", None, "float32")
    assert len(notes) == 1
    assert {weight.dtype for weight in tuned.parameters()} == {torch.float32}
    well = tiny.write(tmp_path / "usual")
    assert base_model.load_in_finite_precision(order(), resolved, well, prepared, report)[0].dtype == "float16"


@pytest.mark.parametrize(
    ("precision", "bf16", "said"),
    [
        ("float16", False, "precision to fp32;"),
        ("float16", True, "precision to bf16;"),
        ("bfloat16", True, "precision to fp32;"),
        ("float32", True, "half or less;"),
    ],
)
def test_what_is_no_number_is_told_with_what_this_device_can_do(
    precision: str, bf16: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.worker.report.devices", lambda: [T4.model_copy(update={"bf16": bf16})])
    report = Report(SimpleNamespace(append=lambda *given, **more: None), 1)
    report.precision = precision
    with pytest.raises(Exception, match="not a number") as caught:
        report.check_finite(float("nan"), 3, "loss")
    assert said in caught.value.hint


def test_a_gradient_that_overflows_at_every_step_ends_the_run(tmp_path: Path) -> None:
    """fp16's scaler leaves such steps out: the loss stays a number, and nothing is learnt."""
    report = Report(SimpleNamespace(append=lambda *given, **more: None), 1)
    report.precision, report.trainer = "float16", SimpleNamespace(objective=None)
    state = SimpleNamespace(global_step=1, epoch=0.0, max_steps=99)
    for norm in [*[float("inf")] * 16, 1.0, *[float("nan")] * 23]:
        report.on_log(None, state, None, {"loss": 2.0, "grad_norm": norm})
    with pytest.raises(StudioError, match="gradient became not a number"):
        report.on_log(None, state, None, {"loss": 2.0, "grad_norm": float("inf")})


# -- bench train on a GPU


def test_peers_see_one_card_and_the_same_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "default_environment", lambda: {"CUDA_VISIBLE_DEVICES": "GPU-a"})
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    for side in ("studio", "trl", "trl-best"):
        told = bench.surroundings(side, order())
        assert told["CUDA_VISIBLE_DEVICES"] == "GPU-a"
        assert "expandable_segments:True" in told["PYTORCH_CUDA_ALLOC_CONF"]


def test_the_peers_best_are_its_best_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *given: (8, 9))
    monkeypatch.setattr(peer, "installed", lambda package: package in ("liger_kernel", "kernels"))
    told = peer.best_settings(True)
    assert told["padding_free"]
    assert told["use_liger_kernel"]
    assert not told["gradient_checkpointing"]
    assert peer.flash() == "kernels-community/flash-attn2"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    for has_card, expected in ((True, torch.float16), (False, torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_card=has_card: has_card)
        assert peer.half() == expected
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *given: (7, 5))
    assert "padding_free" not in peer.best_settings(True)
    assert peer.best_settings(True)["train_sampling_strategy"] == "group_by_length"
    assert set(peer.best_settings(False)) == {"gradient_checkpointing", "train_sampling_strategy"}


def test_a_peers_held_out_loss_is_transformers_own(tmp_path: Path) -> None:
    made = AutoModelForCausalLM.from_pretrained(tiny.write(tmp_path / "tiny"))
    rows = [{"input_ids": list(range(5, end)), "labels": list(range(5, end))} for end in (20, 90)]
    with torch.no_grad():
        losses = [made(**{key: torch.tensor([row[key]]) for key in row}).loss.item() for row in rows]
    expected = (14 * losses[0] + 84 * losses[1]) / 98
    assert peer.held_out(made, rows, torch.device("cpu"), torch.float32) == pytest.approx(expected, rel=1e-5)


# -- memory that comes back


def test_an_idle_server_ends_when_a_run_takes_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.talk import chat

    told: dict[str, Any] = {"busy": 0, "doing": "", "memory": 5}
    monkeypatch.setattr(chat, "is_locked", lambda path: True)
    monkeypatch.setattr(chat, "server", lambda: SimpleNamespace(status=lambda: told))
    monkeypatch.setattr(chat, "end", lambda: 5)
    assert chat.end_if_idle([T4]) == 5
    assert chat.end_if_idle([T4.model_copy(update={"kind": "cpu"})]) == 0
    for busy in ({"busy": 1}, {"doing": "loading base"}):
        monkeypatch.setattr(chat, "server", lambda busy=busy: SimpleNamespace(status=lambda: told | busy))
        assert chat.end_if_idle([T4]) == 0


def test_unloading_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.worker import memory

    done: list[str] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: done.append("emptied"))
    memory.empty_cache()
    assert done == ["emptied"]


def test_placed_leaves_a_quantized_base_where_it_is() -> None:
    moved: list[Any] = []
    for made in (
        SimpleNamespace(quantization_method="bitsandbytes", to=moved.append),
        SimpleNamespace(to=moved.append),
    ):
        distributed.to_device(made, "meta")
    assert moved == [torch.device("meta")]
