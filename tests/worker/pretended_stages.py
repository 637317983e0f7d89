"""Run by test_pretended_accelerator.py: the stages that compare answers, and the brake, on a pretended accelerator."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from studio.evaluation.questions import Question
from studio.stages import STAGES
from studio.worker import keep_general
from studio.worker.base_answers import Target
from studio.worker.rollouts import Rollout
from tests import pretended
from tests.worker.pretended_cases import ROWS, _honest, folder, steps  # noqa: F401 - fixtures

VERDICTS = [row | {"good": number % 2 == 0, "mismatched": row} for number, row in enumerate(ROWS)]
PAIRS = [
    {key: row[key] + other[key] for key in row} | {"second": len(row["input_ids"])}
    for row, other in zip(ROWS, ROWS[1:], strict=False)
]
ROLLOUTS = [
    Rollout(ROWS[0]["input_ids"], Question("", []), list(range(1, length)), "", True, [], 0.0, advantage)
    for length, advantage in ((5, 1.0), (9, -1.0))
]
REWARDS = {"rewards": [{"name": "length", "at_least": 10}]}
STAGED = [
    ({"name": "dpo"}, PAIRS),
    ({"name": "dpo", "loss": "ipo"}, PAIRS),
    ({"name": "kto"}, VERDICTS),
    ({"name": "orpo"}, PAIRS),
    ({"name": "reward"}, PAIRS),
    ({"name": "grpo", **REWARDS}, ROWS),
    ({"name": "grpo", "loss": "dr_grpo", "iterations": 2, **REWARDS}, ROWS),
]


def on_the_device(batch: Any) -> Any:
    """Tensors of a tuple or dictionary, which were made on the host with their values, on the device."""
    if isinstance(batch, dict):
        return {key: pretended.given(value) for key, value in batch.items()}
    return type(batch)(*map(pretended.given, batch))


def prepared(trainer: Any, _: Any) -> None:
    """Pairs are counted, and a step's answers written and collated, on the host."""
    objective, stage = trainer.objective, trainer.objective.stage
    if stage.examples == "pairs":
        objective.start_step = lambda model, micro_batches: micro_batches
    if stage.generates:
        for rollout in ROLLOUTS:
            rollout.before = [0.0] * len(rollout.ids) if stage.iterations > 1 else None
        with unset_fake_temporarily():
            micro_batches = objective.micro_batches(ROLLOUTS)
        objective.start_step = lambda *_: list(map(on_the_device, micro_batches))


def with_reference(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as full fine-tuning has them, whose base is asked before the start."""
    rows = [row | {"reference": [0.0, 0.0] if "second" in row else [0.0]} for row in rows]
    return [
        row | {"mismatched": row["mismatched"] | {"reference": [0.0]}} if "mismatched" in row else row for row in rows
    ]


def test_no_stage_is_left_out() -> None:
    assert {stage["name"] for stage, _ in STAGED} == set(STAGES) - {"sft"}


@pytest.mark.parametrize(("stage", "rows"), STAGED)
def test_every_stage_trains(stage: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> None:  # noqa: F811
    steps(folder, "lora", True, "bf16", stage=stage, rows=rows, prepare=prepared)


@pytest.mark.parametrize(("stage", "rows"), [STAGED[0], STAGED[2]])
def test_a_stage_trains_beside_a_kept_reference(
    stage: dict[str, Any],
    rows: list[dict[str, Any]],
    folder: Path,  # noqa: F811
) -> None:
    steps(folder, "full", False, "fp16", stage=stage, rows=with_reference(rows), prepare=prepared)


@pytest.mark.parametrize("by", ["kl", "replay"])
def test_the_brake_asks_nothing(by: str, folder: Path) -> None:  # noqa: F811
    def brake(trainer: Any, tuned: Any) -> None:
        base = [Target(*(torch.zeros(len(row["input_ids"]) - 1, *width) for width in ([8], [8], []))) for row in ROWS]
        on_host = SimpleNamespace(model=trainer.model, args=SimpleNamespace(device=torch.device("cpu")))
        with unset_fake_temporarily():
            trainer.brake = keep_general.Brake(on_host, 1.0, ROWS, base if by == "kl" else None)
        trainer.brake.batches = list(map(on_the_device, trainer.brake.batches))
        trainer.brake.base = trainer.brake.base and list(map(on_the_device, trainer.brake.base))

    steps(folder, "lora", True, "bf16", prepare=brake)
