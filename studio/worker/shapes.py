"""python -m studio.worker.shapes CONFIG.json.

The tensors of any model that transformers knows, built on the meta device.

Prints one JSON object, tensor name -> shape, tied ones once. No weight is allocated and no code of the model's
repository is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def shapes(config: dict) -> dict[str, list[int]]:
    """Tensor name (as in a checkpoint) -> shape. Raises ValueError for a model type that transformers does not know."""
    model_type = config.pop("model_type")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config))
    return {name: list(weight.shape) for name, weight in model.named_parameters()}


if __name__ == "__main__":
    print(json.dumps(shapes(json.loads(Path(sys.argv[1]).read_text()))))
