"""python -m studio.worker.model_config shapes|settings CONFIG.json: what transformers makes of a config.json, as JSON.

No weight is allocated, and no code of the model's repository is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Tensor name (as in a checkpoint, tied ones once) -> shape, of the model built on the meta device.

    Raises ValueError for a model type that transformers does not know.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return {name: list(weight.shape) for name, weight in model.named_parameters()}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of their class, under the names that transformers 5 writes. Raises ValueError."""
    return AutoConfig.for_model(**config).to_dict()


if __name__ == "__main__":
    ask = {"shapes": shapes, "settings": settings}[sys.argv[1]]
    print(json.dumps(ask(json.loads(Path(sys.argv[2]).read_text()))))
