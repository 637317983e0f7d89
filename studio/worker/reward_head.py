"""The head of a reward model: one number from the hidden state at a sequence's last token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from studio.kernels import SCORE_FILE
from studio.worker.loss import in_place_of_head, unwrap

NAME = "score"  # as transformers calls it in its models for sequence classification


def add(model: Any) -> Any:
    """The model with a new head to be trained on its base. The caller seeds torch before."""
    base = unwrap(model)
    width = base.get_output_embeddings().weight.shape[-1]
    if hasattr(base.get_output_embeddings(), "in_features"):
        width = base.get_output_embeddings().in_features
    head = torch.nn.Linear(width, 1, bias=False)
    torch.nn.init.normal_(head.weight, std=1 / (width + 1))
    base.add_module(NAME, head.to(next(base.parameters()).device))
    return model


def scores(model: Any, inputs: dict[str, Any], last_positions: torch.Tensor) -> torch.Tensor:
    """[n], float32: the score of each sequence. last_positions: of their last tokens among input_ids.flatten()."""
    head = getattr(unwrap(model), NAME)
    return in_place_of_head(
        model, inputs, lambda _, hidden: head(hidden.flatten(0, 1)[last_positions].float()).flatten()
    )[0]


def save(model: Any, folder: Path) -> None:
    """Write the head beside a result, under the name that transformers gives it."""
    from safetensors.torch import save_file

    weight = getattr(unwrap(model), NAME).weight
    save_file({f"{NAME}.weight": weight.detach().cpu().float().contiguous()}, folder / SCORE_FILE)


def load(model: Any, folder: Path) -> Any:
    """The model with the head that `save` wrote."""
    from safetensors.torch import load_file

    add(model)
    head = getattr(unwrap(model), NAME)
    head.weight.data.copy_(load_file(folder / SCORE_FILE)[f"{NAME}.weight"])
    head.requires_grad_(False)
    return model
