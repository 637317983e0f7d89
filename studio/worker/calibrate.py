"""python -m studio.worker.calibrate KIND DTYPE: FLOP/s this device reaches in training, by kind of method. Prints one JSON object:
{rates: {kind: FLOP/s}, launch: {kind: seconds a layer and piece take however short it is}, seconds: that all of it took}.

A model of three layers (of the starter's shape; a wider one on a GPU) goes there and back as the trainer has it: rows laid end to end, our
attention, our loss, under autocast. What its steps take is divided into the work that duration.py counts for them, so that what a count cannot know (casts, small
matrices, dropout) lies in the rate.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio import auto, config, model
from studio.device import cores, devices
from studio.forecast import duration
from studio.worker import attention, fast_lora
from studio.worker.batches import collate
from studio.worker.loss import loss

SHAPE = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 3,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
WIDE = SHAPE | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}  # keeps a GPU busy
LENGTH, SECONDS = (128, 512), 2.5  # tokens of a row on a CPU, and on a GPU; time a measurement takes at least
KINDS = {"adapters": "lora", "full": "full", "other": "adapter"}  # duration.kind -> the method that is timed for it


def measure(device: str, dtype: torch.dtype, method: str) -> tuple[float, float]:
    """(FLOP/s, seconds a layer and piece beside): from a step of one row, and from one of as many as fill a piece."""
    length, shape = LENGTH[device != "cpu"], SHAPE if device == "cpu" else WIDE
    order = config.build({"data": {"train": "none.json", "max_length": length}, "method": method})
    base = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**shape), dtype=dtype, attn_implementation=attention.PACKED_ATTENTION
    ).to(device)
    tuned = order.method.wrap(base).to(device).train()
    fast_lora.speed_up_lora(tuned, dtype != torch.float32)
    row, rows = (
        {"input_ids": list(range(length)), "labels": list(range(length))},
        auto.packed_tokens(order, devices()[0], length) // length,
    )
    one, many = (timed(tuned, collate([row] * count, True), device, dtype) for count in (1, rows))
    each = max(
        (many - one) / (rows - 1), 0.1 * many / rows
    )  # of a row; a busy computer can make the short step look long
    return length * duration.work(model.from_config(shape), order, length, 1.0, False) / each, max(
        0.0, one - each
    ) / shape["num_hidden_layers"]


def timed(tuned: Any, micro_batch: dict[str, Any], device: str, dtype: torch.dtype) -> float:
    """Seconds of a step, the median of some seconds of them; the first two are not counted: they compile kernels."""
    inputs = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in micro_batch.items()}
    times, began = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        step(tuned, inputs, device, dtype)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def step(tuned: Any, inputs: dict[str, Any], device: str, dtype: torch.dtype) -> None:
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        total = loss(tuned, inputs, "chunked", dtype)
    total.backward()
    tuned.zero_grad(set_to_none=True)
    if device != "cpu":
        torch.accelerator.synchronize()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(cores())
    attention.register()
    torch.set_flush_denormal(True)
    kind, start = getattr(torch, sys.argv[2]), time.perf_counter()
    found = {name: measure(sys.argv[1], kind, method) for name, method in KINDS.items()}
    print(
        json.dumps(
            {
                "rates": {name: rate for name, (rate, _) in found.items()},
                "launch": {name: launch for name, (_, launch) in found.items()},
                "seconds": time.perf_counter() - start,
            }
        )
    )
