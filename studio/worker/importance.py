"""An importance matrix as llama.cpp's llama-imatrix takes it: the mean square of what each column of a linear layer is given, over training rows.

K-quants with it err less where the model looks most. It is asked for by name (--imatrix): without, an export depends on no data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy
import torch
from transformers.pytorch_utils import Conv1D

from studio import data, model, run
from studio.errors import ExportError
from studio.talk.reference import ModelReference
from studio.tokens import Encoder
from studio.worker.loaded import LoadedModels
from studio.worker.merge import own_type
from studio.worker.prove import merged_into, room

TOKENS = 16_384  # of training rows that go through the model


def importance(voice: ModelReference) -> dict[str, numpy.ndarray]:
    """Module name -> float32 [columns]. Raises ExportError where there are no rows, DeviceError where there is no memory for the model."""
    rows = _rows(voice)
    if not rows:
        raise ExportError(
            "There are no training rows to measure importance on.",
            "Leave --imatrix out, or put the data back where it was.",
            "--imatrix",
        )
    place, dtype = room(model.facts(voice.base).parameters, own_type(voice))
    speakers = LoadedModels(place, dtype)
    loaded = speakers.load(voice).model
    whole = (
        loaded if voice.whole else merged_into(next(iter(speakers.bases.values())), voice) if voice.result else loaded
    )
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def seen(name: str) -> Any:
        def hook(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            flat = given[0].detach().float().flatten(0, -2)
            sums[name] = sums.get(name, 0) + flat.square().sum(0)
            counts[name] = counts.get(name, 0) + len(flat)

        return hook

    for name, layer in whole.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            layer.register_forward_pre_hook(seen(name))
    with torch.inference_mode():
        for ids in rows:
            whole(input_ids=torch.tensor([ids], device=place))
    return {name: (total / counts[name]).cpu().numpy() for name, total in sums.items()}


def _rows(voice: ModelReference) -> list[list[int]]:
    """ids of rows the voice was trained on, up to TOKENS tokens in all; [] for what is no run, or when the data has gone."""
    order = run.find(voice.name.partition("@")[0]).config
    sections = order.data_sections()
    return [
        ids
        for section, seed in sections
        for ids in _some(
            data.prepare(
                section, Encoder.from_order(section, voice.base, voice.template, order.virtual_tokens), seed
            ).train,
            TOKENS // len(sections),
        )
    ]


def _some(rows: Iterable[dict[str, Any]], most: int) -> list[list[int]]:
    """ids of the first rows, `most` tokens in all."""
    found: list[list[int]] = []
    for row in rows:
        found.append(list(row["input_ids"])[:most])
        most -= len(found[-1])
        if most <= 0:
            break
    return found
