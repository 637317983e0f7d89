"""A run that is cut off and resumed ends with the very weights of one that was not, for every method."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

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


def test_a_resume_takes_the_changed_rate_and_decay(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    """The checkpoint's optimizer and schedule hold the old ones. LoRA+ has two rates."""
    from studio.worker.train import main

    method = {"name": "lora", "plus_ratio": 16}
    changes = {"learning_rate": 3e-3, "weight_decay": 0.5, "schedule": "linear", "epochs": 9}
    first, cut, other = (create(order(method, tiny_model, tiny_data)) for _ in range(3))
    other.change("ordered so", training=changes)
    assert [main(first), main(other)] == [0, 0]
    shutil.copytree(first.checkpoints / "checkpoint-3", cut.checkpoints / "checkpoint-3")
    cut.change("resumed with changes", training=changes)
    assert main(cut) == 0
    rates = {run: [event["learning_rate"] for event in run.events() if event["kind"] == "step"] for run in (cut, other)}
    assert rates[cut] == rates[other][3:]
    saved = torch.load(cut.checkpoints / "checkpoint-6" / "optimizer.pt", weights_only=True)["param_groups"]
    plain = torch.load(other.checkpoints / "checkpoint-6" / "optimizer.pt", weights_only=True)["param_groups"]
    assert [(group["lr"], group["weight_decay"]) for group in saved] == [
        (group["lr"], group["weight_decay"]) for group in plain
    ]


def test_an_order_that_ends_before_the_checkpoint_is_refused(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    from studio.worker.train import main

    whole = create(order({"name": "lora"}, tiny_model, tiny_data))
    assert main(whole) == 0
    whole.change("resumed with changes", training={"max_steps": 5})
    assert main(whole) == 1
    assert whole.events()[-1]["cause"].startswith("The order ends after 5 steps, and the newest checkpoint has 6")


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
