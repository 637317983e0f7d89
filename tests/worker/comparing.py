"""Pairs and verdicts of a few short rows, and the objective of a stage over a model, without a run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from studio import data, template
from studio.data import DataOrder
from studio.tokens import Encoder
from studio.worker.batches import MicroBatchCollator
from studio.worker.grpo import GroupObjective
from studio.worker.packing import BOOKKEEPING, Layout
from studio.worker.preference import Objective, PreferenceRows

LAYOUTS = {"packed": Layout(True, 4096, 16), "padded": Layout(False, 4096, 2)}
QUICK = {"forgetting": False, "samples": 0, "probe": False, "threads": 1}  # of training, for runs of a second
PAIRS = [
    {"prompt": f"Say the number {n}", "chosen": f"The number is {n}." * (1 + n % 3), "rejected": f"No, not {n}!"}
    for n in range(4)
]
VERDICTS = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for n, row in enumerate(PAIRS)
    for side in (("chosen", "rejected") if n % 2 else ("rejected",))
]


def encoded(rows: list[dict[str, Any]], examples: str, folder: Path, model: Path) -> Any:
    """The rows as a stage that learns from such examples is given them."""
    file = folder / f"{examples}.json"
    file.write_text(json.dumps(rows))
    order = DataOrder(train=str(file), eval=0).learnt_by(examples)
    return data.prepare(order, Encoder.from_order(order, model, template.load("model", model))).train


def objective_of(stage: Any, model: Any, kind: str = "chunked") -> Objective:
    trainer = SimpleNamespace(
        to_device=lambda value: value,
        model_inputs=lambda micro_batch: {k: v for k, v in micro_batch.items() if k not in BOOKKEEPING},
        loss_kind=kind,
        dtype=torch.float32,
        args=SimpleNamespace(device=torch.device("cpu")),
        accelerator=SimpleNamespace(unwrap_model=lambda model, **_: model, autocast=contextlib.nullcontext),
        model=model,
        sharded=False,
        report=SimpleNamespace(check_stop=lambda: None),
    )
    return (GroupObjective if stage.generates else Objective)(stage, trainer)


def loss_of(
    stage: Any, model: Any, rows: Any, layout: str = "padded", kind: str = "chunked", reference: Any = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """(mean loss of the rows as one effective batch, metrics) by the training step's own functions."""
    objective = objective_of(stage, model, kind)
    rows = PreferenceRows(rows, stage.mismatched, reference)
    micro_batches = MicroBatchCollator(LAYOUTS[layout])(rows.first(len(rows)))
    count = micro_batches[-1]["num_items_in_batch"]
    total = sum(objective.loss(model, one) for one in objective.start_step(model, micro_batches))
    return total / count, objective.metrics.take()
