"""Which rule settles what: no torch, no model loaded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio import auto, cards, config, kernels, model
from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError
from studio.memory.peak import peak
from studio.memory.studio_loop import RowStatistics
from studio.model import ModelFacts
from studio.resolve import Resolved, resolve
from studio.run import Run
from studio.runs import launch

STATISTICS = {"rows": 100, "eval_rows": 5, "tokens": 20_000, "trained": 15_000, "max": 700}
CPU = Device(kind="cpu", name="a CPU", memory=16 * 2**30, free=12 * 2**30, bf16=True, cores=8)
SLOW_CPU = CPU.model_copy(update={"bf16": False, "cores": 2})
CARD = Device(kind="cuda", name="a card", memory=24 * 2**30, free=23 * 2**30, capability=(8, 6), bf16=True, cores=8)
OLD = Device(
    kind="cuda", name="an old card", memory=16 * 2**30, free=15 * 2**30, capability=(7, 5), bf16=False, cores=8
)


@pytest.fixture
def facts(tiny_model: Path) -> ModelFacts:
    return model.facts(tiny_model)


def order(*settings: str) -> RunConfig:
    return config.parse("{data: {train: x.json}}", list(settings))


def settle(facts: ModelFacts, device: Device, *settings: str) -> Resolved:
    return resolve(order(*settings), facts, device, STATISTICS)


def test_precision_by_device(facts: ModelFacts) -> None:
    assert [settle(facts, device).dtype for device in (CPU, SLOW_CPU, CARD, OLD)] == [
        "bfloat16",
        "float32",
        "bfloat16",
        "float16",
    ]
    assert settle(facts, CARD, "training.precision=fp32").autocast is None
    for device, wanted in ((OLD, "bf16"), (CPU, "fp16")):
        with pytest.raises(OrderError):
            auto.precision(order(f"training.precision={wanted}"), device)


def test_rows_are_laid_end_to_end_where_model_and_method_allow_it(facts: ModelFacts) -> None:
    assert settle(facts, CPU).packed
    assert settle(facts, CPU).attention == "packed"
    assert not settle(facts, CPU, "training.packing=false").packed
    assert settle(facts, CPU, "method.name=prefix").attention == "sdpa"
    assert not settle(facts, CPU, "method.name=prefix").packed
    assert not settle(facts, CPU, "training.attention=eager").packed


@pytest.mark.parametrize(
    "told",
    [
        {"model_type": "mamba2"},
        {"layer_types": ["linear_attention", "full_attention"]},
        {"sliding_window": 512},
        {"attn_logit_softcapping": 50.0},
    ],
)
def test_models_whose_rows_must_stay_apart(told: dict[str, Any], facts: ModelFacts) -> None:
    other = facts.model_copy(update={"model_type": told.get("model_type", "llama"), "config": {**facts.config, **told}})
    assert not auto.layout(order(), other, CPU, 700)[0]
    with pytest.raises(OrderError, match="cannot be packed"):
        auto.layout(order("training.packing=true"), other, CPU, 700)
    if "sliding_window" in told:
        assert auto.layout(order(), other, CPU, 512)[0], "a window as long as the longest row hides nothing"


def test_capped_scores_want_eager_attention(facts: ModelFacts) -> None:
    """transformers refuses SDPA for Gemma 2 in the middle of its first step."""
    capped = facts.model_copy(update={"config": {**facts.config, "attn_logit_softcapping": 50.0}})
    assert auto.layout(order(), capped, CARD, 700)[1] == "eager"
    with pytest.raises(OrderError, match="caps its attention scores"):
        auto.layout(order("training.attention=sdpa"), capped, CARD, 700)


def test_pieces(facts: ModelFacts) -> None:
    assert settle(facts, CPU).micro_batch_tokens == auto.CPU_TOKENS > 700
    assert auto.packed_tokens(order(), CPU, 2000) == 2000
    assert auto.packed_tokens(order("method.name=full"), CPU, 100) == auto.CPU_TOKENS_FULL
    assert settle(facts, CARD).micro_batch_tokens == 4 * 700


def test_tokens_at_once_by_what_a_card_is_kept_busy_by() -> None:
    """The effective batch stays; what the order names stays too."""
    card = cards.device("RTX 4090")
    many = {"rows": 9000, "eval_rows": 0, "tokens": 1_800_000, "trained": 900_000, "max": 200}
    small, large = (model.from_catalogue(name) for name in ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct"))
    tokens = {
        name: resolve(order(*settings), facts, card, many).micro_batch_tokens
        for name, facts, settings in (
            ("small", small, ()),
            ("large", large, ()),
            ("rows named", small, ("training.batch_size=4",)),
            ("tokens named", small, ("training.micro_batch=1024",)),
        )
    }
    assert 4 * 200 < tokens["small"] <= 16 * 200
    assert tokens == {**tokens, "large": 800, "rows named": 800, "tokens named": 1024}
    assert {resolve(order(), facts, card, many).effective for facts in (small, large)} == {16}
    padded = resolve(order("training.packing=false"), small, card, many)
    assert 4 < padded.batch_size <= 16


def test_as_many_layers_are_checkpointed_as_needed() -> None:
    facts, card = model.from_catalogue("meta-llama/Llama-3.1-8B"), cards.device("RTX 4090")
    long_rows = {"rows": 9000, "eval_rows": 0, "tokens": 9000 * 2048, "trained": 9000 * 2000, "max": 2048}
    chosen = resolve(order("data.max_length=2048"), facts, card, long_rows)
    assert 0 < chosen.checkpointed_layers < 32
    assert chosen.micro_batch_tokens == 4 * 2048

    def fits(layers: int) -> bool:
        settings = ("data.max_length=2048", "training.checkpointing=true", f"training.checkpointed_layers={layers}")
        config, rows = order(*settings, "training.micro_batch=8192"), RowStatistics.of(long_rows)
        return peak(facts, config, card, rows).fits

    assert fits(chosen.checkpointed_layers)
    assert not fits(chosen.checkpointed_layers - 3), "a search of two tries comes near"


def test_a_small_card_holds_fewer_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mib = [kernels.logit_chunk_bytes("cuda", size << 30) >> 20 for size in (4, 8, 12, 16, 24, 48, 80)]
    assert mib == [64, 128, 256, 256, 512, 512, 512]
    facts, card = model.from_catalogue("Qwen/Qwen2.5-1.5B-Instruct"), cards.device("RTX 4060")
    config = order("method.name=qlora", "training.micro_batch=2048", "training.checkpointing=true")
    now = peak(facts, config, card, None).total
    monkeypatch.setattr(kernels, "CHUNKS_OF_A_CARD", 1)
    assert peak(facts, config, card, None).total - now > 0.5 * 2**30


def test_a_probe_is_left_out_where_memory_is_plenty(facts: ModelFacts) -> None:
    tight = CPU.model_copy(update={"free": 10**9})
    chosen = [settle(facts, CPU), settle(facts, tight), settle(facts, CARD), settle(facts, CPU, "training.probe=true")]
    assert [resolved.probe for resolved in chosen] == [False, True, True, True]


def test_fused_kernels_say_why_not(facts: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not installed" in settle(facts, CARD).why["fused_kernels"]
    monkeypatch.setattr(auto, "installed", lambda name: True)
    assert settle(facts, CARD).fused_kernels
    assert not settle(facts, CARD, "training.fused_kernels=false").fused_kernels
    assert "NVIDIA" in settle(facts, CPU).why["fused_kernels"]
    other = facts.model_copy(update={"model_type": "bloom"})
    assert "the family bloom" in settle(other, CARD).why["fused_kernels"]
    with pytest.raises(OrderError, match="cannot be used"):
        settle(facts, CPU, "training.fused_kernels=true")


def test_threads_leave_room_for_the_page() -> None:
    assert auto.threads(order(), CPU, 1) == 7
    assert auto.threads(order(), SLOW_CPU, 1) == 2
    assert auto.threads(order(), CPU, 2) == 3
    assert auto.threads(order("training.threads=5"), CPU, 1) == 5


@pytest.mark.parametrize(
    ("name", "method", "checkpointed"),
    [
        ("starter", "lora", False),
        ("starter", "full", False),
        ("Qwen/Qwen2.5-0.5B-Instruct", "lora", True),
        ("Qwen/Qwen3-0.6B", "full", None),
    ],
)
def test_two_cores_and_eight_gigabytes(name: str, method: str, checkpointed: bool | None) -> None:
    """A small laptop, 5.5 GiB of it free: float32 on both cores, all layers kept where they fit; None: too large."""
    laptop = SLOW_CPU.model_copy(update={"memory": 8 * 2**30, "free": int(5.5 * 2**30)})
    config = order("method.name=" + method)
    facts = model.facts_of(config.model) if name == "starter" else model.from_catalogue(name)
    rows = {"rows": 1000, "eval_rows": 50, "tokens": 200_000, "trained": 150_000, "max": 500}
    chosen = resolve(config, facts, laptop, rows)
    assert (chosen.dtype, chosen.threads, chosen.workers) == ("float32", 2, 0)
    assert chosen.probe, "less than half of the memory is left"
    assert peak(facts, config, laptop, RowStatistics.of(rows)).fits == (checkpointed is not None)
    assert chosen.checkpointing == (checkpointed is not False)


def test_checkpointing_follows_the_estimate(facts: ModelFacts) -> None:
    assert settle(facts, CARD).checkpointing is False
    assert "% to spare" in settle(facts, CARD).why["checkpointing"]
    full = CARD.model_copy(update={"free": 1})
    assert settle(facts, full).checkpointing is True
    assert settle(facts, full, "training.checkpointing=false").checkpointing is False


def test_loss_and_optimizer() -> None:
    assert auto.loss(order()) == "chunked"
    assert auto.loss(order("training.label_smoothing=0.1")) == "full"
    with pytest.raises(OrderError):
        auto.loss(order("training.label_smoothing=0.1", "training.loss=chunked"))
    assert auto.optimizer(order(), CPU) == "adamw_torch_fused"
    assert auto.optimizer(order("training.optimizer=adamw_8bit"), CARD) == "adamw_bnb_8bit"
    with pytest.raises(OrderError):
        auto.optimizer(order("training.optimizer=paged_adamw_8bit"), CPU)


def test_flash_attention_is_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in (CPU, OLD):
        with pytest.raises(OrderError, match="Flash attention needs"):
            auto.attention(order("training.attention=flash"), device)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "kernels" or None)
    assert auto.attention(order("training.attention=flash"), CARD) == "kernels-community/flash-attn2"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OrderError, match="not installed"):
        auto.attention(order("training.attention=flash"), CARD)


def test_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [CARD, CARD.model_copy(update={"index": 1})]
    assert launch.processes(order(), cards) == 1
    assert launch.processes(order("training.devices=2"), cards) == 2
    assert launch.processes(order("training.devices=4"), cards) == 2
    assert launch.processes(order("training.devices=2"), [CPU]) == 2


def test_hosts_get_their_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = launch.hosts(order("name=big", "training.devices=8"), 3, "/shared/runs/big one")
    first, *others = told["commands"]
    assert first == "STUDIO_HOSTS=\"3 HOST0:29500\" python -m studio.supervise '/shared/runs/big one'"
    assert [f"--node-rank={rank}" in line for rank, line in enumerate(others, 1)] == [True, True]
    assert all(
        "--nproc-per-node=8" in line and "--nnodes=3" in line and "'/shared/runs/big one'" in line for line in others
    )
    assert told["slurm"].startswith("#!/bin/bash")
    assert "#SBATCH --nodes=3" in told["slurm"]
    plan = yaml.safe_load(told["skypilot"])
    assert plan["num_nodes"] == 3
    assert "$SKYPILOT_NODE_RANK" in plan["run"]
    monkeypatch.setenv(launch.HOSTS, "3 node0:29500")
    (tmp_path / "config.yaml").write_text(order("training.devices=8").to_yaml())
    assert {"--nproc-per-node=8", "--nnodes=3", "--node-rank=0", "--master-addr=node0", "--master-port=29500"} <= set(
        launch.command(Run(tmp_path))
    )


@pytest.mark.parametrize("file", ["slurm", "skypilot"])
def test_each_host_of_a_cluster_types_its_own_line(file: str, tmp_path: Path) -> None:
    """The files run through a shell, with the cluster's own commands faked: the first host has the supervisor, the
    other torchrun.
    """
    told = launch.hosts(order("training.devices=2"), 2, "/shared/run")
    script = told["slurm"] if file == "slurm" else yaml.safe_load(told["skypilot"])["run"]
    for name, text in {
        "python": 'echo "$STUDIO_HOSTS|$*"',
        "scontrol": "echo node0; echo node1",
        "srun": '"$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    said = []
    for rank in ("0", "1"):
        known = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_NODEID": rank,
            "SLURM_JOB_NODELIST": "node[0-1]",
            "SKYPILOT_NODE_RANK": rank,
            "SKYPILOT_NODE_IPS": "node0\nnode1",
            "RUN": "/shared/run",
        }
        said.append(
            subprocess.run(
                ["bash", "-c", script, "bash", "/shared/run"], env=known, capture_output=True, text=True, check=True
            ).stdout.strip()
        )
    assert said[0] == "2 node0:29500|-m studio.supervise /shared/run"
    assert said[1] == (
        "|-m torch.distributed.run --nproc-per-node=2 --max-restarts=0 --nnodes=2 --node-rank=1 --master-addr=node0 "
        "--master-port=29500 -m studio.worker.train /shared/run"
    )


def test_what_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert "GOMP_SPINCOUNT" in launch.environment(order())
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & launch.environment(order()).keys()
    assert "MALLOC_TRIM_THRESHOLD_" in launch.environment(order())
