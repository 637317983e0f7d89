"""Forgetting and the brake on two processes, with copies of the model and with a split one: as on one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.run import Run
from tests.worker.carrying import carry, order, rows
from tests.worker.ranks import train_in_ranks

SETTINGS = (
    "method.name=full",
    "training.learning_rate=0.003",
    "training.schedule=constant",
    "training.max_steps=4",
    "training.eval_every=4",
    "training.samples=0",
    "training.probe=false",
    "training.forgetting=true",
    "training.keep_general=1",
)


def measured(run: Run) -> dict[str, Any]:
    return [event for event in run.events() if event["kind"] == "forgetting"][-1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """The run on one process, which is this one."""
    home = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        run = order(tiny_model, rows(home / "rows.json", 23), *SETTINGS)
        carry(run)
    assert run.state() == "finished"
    return run


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_as_on_one_process(home: Path, tiny_model: Path, tmp_path: Path, alone: Run, sharding: str) -> None:
    data = rows(tmp_path / "rows.json", 23)
    both = order(tiny_model, data, *SETTINGS, "training.devices=2", f"training.sharding={sharding}")
    train_in_ranks(both)
    one, two = measured(alone), measured(both)
    assert one["final"]
    assert two["final"]
    assert two["items"] == one["items"] == 200
    assert two["kl"] == pytest.approx(one["kl"], rel=0.02, abs=2e-4)
    assert two["loss_rise"] == pytest.approx(one["loss_rise"], rel=0.02, abs=1e-3)
