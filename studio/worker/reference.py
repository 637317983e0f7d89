"""The log-probabilities of a run's rows by the model before training, taken once and kept in the run's folder."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from studio.worker import distributed
from studio.worker.batches import EffectiveBatchSampler
from studio.worker.preference import PreferenceRows

REFERENCE_FILE = "reference.npz"


def with_reference(trainer: Any, folder: Path, steps: int) -> None:
    """Give the trainer's rows the reference's log-probabilities: from the run's folder, or asked now and kept there.

    steps: of the whole run; rows that none of them draws are not asked about.
    """
    stage, datasets = trainer.objective.stage, {"train": trainer.train_dataset, "eval": trainer.eval_dataset}
    datasets = {name: rows for name, rows in datasets.items() if rows is not None}
    content = json.dumps({name: rows.content for name, rows in datasets.items()})
    file = folder / REFERENCE_FILE
    stored = distributed.broadcast(_stored(file, content)) or {}
    asked = {name: range(len(rows)) for name, rows in datasets.items()}
    asked["train"] = drawn_rows(len(trainer.train_dataset), trainer.effective_batch_size, trainer.args.seed, steps)
    missing = {
        name: [number for number in numbers if name not in stored or np.isnan(stored[name][number, 0])]
        for name, numbers in asked.items()
    }
    if count := sum(map(len, missing.values())):
        trainer.report.note(f"The reference's log-probabilities of {count} rows are taken once, before the start.")
        for name, rows in datasets.items():
            values = trainer.objective.cache_reference(rows, trainer.layout, missing[name])
            stored[name] = np.where(np.isnan(values), stored.get(name, values), values)
        if distributed.is_main():
            temporary = file.with_name(f".{file.name}")
            np.savez(temporary, content=np.array(content), **{name: stored[name] for name in datasets})
            temporary.replace(file)
    for name, rows in datasets.items():
        values = np.nan_to_num(stored[name])  # a probe of the longest rows may ask for one that no step draws
        setattr(trainer, f"{name}_dataset", PreferenceRows(rows.rows, stage.mismatched, values))


def drawn_rows(count: int, effective_batch_size: int, seed: int, steps: int) -> list[int]:
    """The sorted numbers of the rows that the run's first `steps` steps draw. count: of all rows."""
    sampler, drawn = EffectiveBatchSampler(count, effective_batch_size, seed), set[int]()
    for epoch in range(-(-steps // max(1, len(sampler)))):
        sampler.set_epoch(epoch)
        for numbers in islice(sampler, steps - epoch * len(sampler)):
            drawn.update(numbers)
        if len(drawn) == count:
            break
    return sorted(drawn)


def _stored(file: Path, content: str) -> dict[str, np.ndarray] | None:
    if not file.is_file():
        return None
    with np.load(file) as arrays:
        return dict(arrays) if str(arrays["content"]) == content else None
