"""How LoRA's matrices start where it is not from no change: PiSSA and OLoRA from the weights, EVA from the data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from studio.errors import OrderError

FROM_WEIGHTS = ("pissa", "olora")  # they take B·A out of W before the first step
LIMITED = (*FROM_WEIGHTS, "eva")  # to as many directions as the smaller side of a weight has


def check_rank(init: str, rank: int, name: str, directions: int) -> None:
    """Raise OrderError where a linear has fewer directions than the rank asks for."""
    if rank > directions:
        message = f"Start {init} finds at most {directions} directions in {name}, but the rank is {rank}."
        hint = f"Set method.rank to {directions} or less, or method.init to kaiming."
        raise OrderError(message, hint, "method.rank")


def remember(model: Any) -> None:
    """Keep the first A and B of FROM_WEIGHTS: a result says how the original W changed."""
    model.initial_lora = {
        name: weight.detach().clone() for name, weight in model.named_parameters() if ".lora_" in name
    }


def from_data(model: Any, batches: Iterable[dict[str, Any]]) -> None:
    """EVA (arXiv 2410.07170): A starts as the main directions of each layer's inputs; ranks stay equal."""
    from peft import initialize_lora_eva_weights

    from studio.worker.loss import forward

    initialize_lora_eva_weights(model, list(batches), forward_fn=forward, show_progress_bar=False)


def as_weight_change(state: dict[str, Any], initial: dict[str, Any]) -> dict[str, Any]:
    """(W - s·B₀A₀) + s·BA = W + s·[B, -B₀]·[A; A₀]: the last step of PiSSA, arXiv 2404.02948, appendix C."""
    import torch

    changed = {}
    for name, weight in state.items():
        start = initial.get(re.sub(r"(\.lora_[AB])\.weight$", r"\1.default.weight", name))
        if start is None:
            changed[name] = weight
        elif ".lora_A." in name:
            changed[name] = torch.cat([weight, start], dim=0)
        else:
            changed[name] = torch.cat([weight, -start], dim=1)
    return changed
