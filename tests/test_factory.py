"""LLaMA-Factory as a peer: our order in its words, its trainer log as it appears. No installation is made here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio import config
from studio.device import Device
from studio.errors import StudioError
from studio.forecast import utilisation
from studio.memory import tables
from studio.model import facts, from_config
from tests.bench import factory, train

CPU = Device(kind="cpu", name="a CPU", memory=16 * 2**30, free=12 * 2**30, bf16=True, cores=2)


def ordered(*settings: str) -> dict[str, Any]:
    chosen = config.parse(
        "{data: {train: x.json, max_length: 512}, training: {max_steps: 8, batch_size: 4, accumulation: 2}}",
        list(settings),
    )
    return factory.order(chosen, Path("/models/one"), Path("/work/rows"), Path("/work/out"), CPU)


def test_the_order_in_its_words() -> None:
    lora, full = ordered(), ordered("method.name=full")
    assert lora["finetuning_type"] == "lora"
    assert (lora["lora_rank"], lora["lora_alpha"], lora["lora_target"]) == (16, 32, "all")
    assert (lora["per_device_train_batch_size"], lora["gradient_accumulation_steps"], lora["max_steps"]) == (4, 2, 8)
    assert lora["disable_shuffling"] is True
    assert lora["use_cpu"] is True
    assert full["finetuning_type"] == "full"
    assert "lora_rank" not in full
    assert ordered("method.name=qlora")["quantization_bit"] == 4


def test_its_log_is_read_as_it_grows(tmp_path: Path) -> None:
    log = tmp_path / factory.LOG
    script = (
        "import json, sys, time\n"
        "for step in (1, 2, 3):\n"
        "    time.sleep(0.2)\n"
        "    with open(sys.argv[1], 'a') as file: file.write(json.dumps({'current_steps': step, 'loss': 3.0 - "
        "step}) + chr(10))\n"
        "with open(sys.argv[1], 'a') as file: file.write(json.dumps({'current_steps': 3, 'epoch': 1.0}) + chr(10))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(log)])
    moments, peak = factory._watch(process, log)
    assert process.returncode == 0
    assert peak > 1e6
    told = factory.told(moments, [10, 20, 30, 40, 50, 60], 2, peak)
    assert [tokens for _, tokens in told["points"]] == [30, 100, 210]
    assert told["points"][0][0] < told["points"][1][0] < told["points"][2][0]
    assert told["train_loss"] == 1.0
    assert told["peak_memory"] == peak
    assert train._spoken({"began": told["points"][0][0] - 5, "loss": 1.5, **told})["first_step"] == 5.0


def test_what_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    with pytest.raises(StudioError, match=r"cannot be installed here: no matching distribution") as refused:
        factory._do(
            [sys.executable, "-c", "print('collecting'); print('ERROR: no matching distribution'); raise SystemExit(1)"]
        )
    assert "--peer trl" in refused.value.hint


def test_utilisation_counts_what_the_mathematics_asks_for(tiny_model: Path) -> None:
    """By hand for the tiny Llama: per layer q 32×32, k and v 16×32, o 32×32, three of 64×32; two layers; the tied
    head.
    """
    known = facts(tiny_model)
    weights = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32) + known.vocab_size * 32
    lengths = [10, 30]
    seen = (100 + 900) / 40
    assert utilisation.flops_per_token(known, False, lengths) == pytest.approx(4 * weights + 6 * 2 * 32 * seen)
    assert utilisation.flops_per_token(known, True, lengths) == pytest.approx(6 * weights + 6 * 2 * 32 * seen)


def test_utilisation_of_a_known_shape() -> None:
    """Llama-3.2-1B: 1,235,746,816 weights in products (its norms stand in none), rows of 2048 tokens, 16 layers of
    width 2048.
    """
    shapes = json.loads(tables.MODELS.read_text())
    known = from_config(shapes["meta-llama/Llama-3.2-1B"])
    attention = 6 * 16 * 2048 * 2048
    assert utilisation.flops_per_token(known, False, [2048] * 4) == 4 * 1_235_746_816 + attention
    assert utilisation.flops_per_token(known, True, [2048] * 4) == 6 * 1_235_746_816 + attention


def test_the_ceiling_is_a_speed() -> None:
    import torch

    from studio.worker import matmul_flops

    found = matmul_flops.measure("cpu", torch.float32, width=256, seconds=0.05)
    assert 1e8 < found < 1e14
