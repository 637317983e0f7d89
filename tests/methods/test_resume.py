"""A run that is cut off and resumed ends with the very weights of one that was not, for every method."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from studio import config
from studio.methods import METHODS
from studio.run import Run, create
from tests.methods.variants import title
from tests.worker.ranks import begin

CHOSEN: list[dict[str, Any]] = [
    *({"name": name} for name in METHODS),
    {"name": "lora", "init": "pissa"},
    {"name": "lora", "init": "eva"},
    {"name": "lora", "plus_ratio": 16, "dora": True},
    {"name": "p_tuning", "encoder": "lstm", "dropout": 0.2},
    {"name": "adapter", "dropout": 0.2, "quantization": "nf4"},
]
SAMPLED = ("lora", "prefix")  # the others save a third of the time


def order(method: dict[str, Any], model: Path, data: Path) -> config.RunConfig:
    return config.build(
        {
            "model": str(model),
            "data": {"train": str(data), "eval": 0.2},
            "method": method,
            "training": {
                "max_steps": 6,
                "save_every": 3,
                "eval_every": 3,
                "batch_size": 4,
                "accumulation": 1,
                "threads": 1,
                "keep_checkpoints": 9,
                "samples": 3 if method["name"] in SAMPLED else 0,
            },
        }
    )


def weights(run: Run) -> bytes:
    """The result's tensors as they lie on disk."""
    (file,) = run.result.glob("*.safetensors")
    return file.read_bytes()


@pytest.mark.parametrize("method", CHOSEN, ids=title)
def test_resumed_is_identical(home: Path, tiny_model: Path, tiny_data: Path, method: dict[str, Any]) -> None:
    """As a kill right after the checkpoint of step 3 leaves it: that checkpoint, and nothing else."""
    from studio.worker.train import main

    whole, cut = (create(order(method, tiny_model, tiny_data)) for _ in range(2))
    assert main(whole) == 0
    shutil.copytree(whole.checkpoints / "checkpoint-3", cut.checkpoints / "checkpoint-3")
    assert main(cut) == 0
    assert [event["from_step"] for event in cut.events() if event.get("from_step") is not None] == [3]
    assert weights(cut) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [CHOSEN[0], *(pytest.param(one, marks=pytest.mark.rare) for one in CHOSEN[5::5])], ids=title
)
def test_killed_and_resumed_is_identical(home: Path, tiny_model: Path, tiny_data: Path, method: dict[str, Any]) -> None:
    """With real processes, killed hard as soon as a checkpoint stands, wherever the trainer is."""
    from studio.worker.train import main

    whole, cut = (create(order(method, tiny_model, tiny_data)) for _ in range(2))
    assert main(whole) == 0
    killed = begin(cut)
    while killed.is_alive() and not (cut.checkpoints / "checkpoint-3" / "manifest.json").exists():
        time.sleep(0.01)
    killed.kill()
    killed.join(60)
    again = begin(cut)
    again.join(300)
    assert again.exitcode == 0, cut.log.read_text()[-2000:]
    assert weights(cut) == weights(whole)
