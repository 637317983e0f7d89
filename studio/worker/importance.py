"""An importance matrix as llama.cpp's llama-imatrix computes it: the mean square of each input column of a linear
layer.

The activations are those of training rows. K-quants then err less on columns that matter. It is opt-in (--imatrix),
since an export then depends on data.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy
import torch
from transformers.pytorch_utils import Conv1D

from studio import data, model, run
from studio.errors import ExportError
from studio.talk.reference import ModelReference
from studio.tokens import Encoder
from studio.worker.loaded import LoadedModels
from studio.worker.merge import base_dtype
from studio.worker.prove import load_merged_weights, placement

TOKENS = 16_384  # of training rows


def importance(reference: ModelReference) -> dict[str, numpy.ndarray]:
    """Module name -> float32 [columns]. Raises ExportError without rows, DeviceError without memory for the model."""
    rows = _rows(reference)
    if not rows:
        hint = "Leave --imatrix out, or put the data back where it was."
        raise ExportError("There are no training rows to measure importance on.", hint, "--imatrix")
    loaded_models = LoadedModels(*placement(model.facts(reference.base).parameters, base_dtype(reference)))
    merged = loaded_models.load(reference).model
    if reference.result and not reference.standalone:
        merged = load_merged_weights(next(iter(loaded_models.bases.values())), reference)
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def accumulate(name: str, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        flat = inputs[0].detach().float().flatten(0, -2)
        sums[name] = sums.get(name, 0) + flat.square().sum(0)
        counts[name] = counts.get(name, 0) + len(flat)

    for name, layer in merged.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            layer.register_forward_pre_hook(partial(accumulate, name))
    with torch.inference_mode():
        for ids in rows:
            merged(input_ids=torch.tensor([ids], device=loaded_models.device))
    return {name: (total / counts[name]).cpu().numpy() for name, total in sums.items()}


def _rows(reference: ModelReference) -> list[list[int]]:
    """Token ids of rows the model was trained on, about TOKENS tokens in all."""
    order = run.find(reference.name.partition("@")[0]).config
    sections = order.data_sections()
    return [
        ids
        for section, seed in sections
        for ids in _some(
            data.prepare(
                section, Encoder.from_order(section, reference.base, reference.template, order.virtual_tokens), seed
            ).train,
            TOKENS // len(sections),
        )
    ]


def _some(rows: Iterable[dict[str, Any]], most: int) -> list[list[int]]:
    """Token ids of the first rows, `most` tokens in all."""
    ids: list[list[int]] = []
    for row in rows:
        ids.append(list(row["input_ids"])[:most])
        most -= len(ids[-1])
        if most <= 0:
            break
    return ids
