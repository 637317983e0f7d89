"""python -m studio.worker.calibrate KIND DTYPE: FLOP/s that this device reaches in training, by kind of method.

Prints one JSON object: {rates: {kind: FLOP/s}, launch: {kind: seconds that a layer takes for a micro-batch however
short it is}, seconds: duration of the measurement}.

A model of three layers (of the starter's shape; a wider one on a GPU) runs forward and backward as the trainer does:
packed rows, our attention, our loss, under autocast. The seconds of a step are divided into the work that duration.py
counts for it, so that what a count cannot know (casts, small matrices, dropout) is part of the rate.
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
from studio.worker.loss import loss
from studio.worker.packing import collate, model_inputs

CPU_SHAPE = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 3,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
GPU_SHAPE = CPU_SHAPE | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
CPU_LENGTH, GPU_LENGTH = 128, 512  # tokens of a row
SECONDS = 2.5  # that a measurement takes at least
METHODS = {"adapters": "lora", "full": "full", "other": "adapter"}  # duration.kind -> the method that is timed for it


def measure(device: str, dtype: torch.dtype, method: str) -> tuple[float, float]:
    """(FLOP/s, seconds a layer beside): from a step of one row, and from one of as many as fill a micro-batch."""
    length, shape = (CPU_LENGTH, CPU_SHAPE) if device == "cpu" else (GPU_LENGTH, GPU_SHAPE)
    order = config.build({"data": {"train": "none.json", "max_length": length}, "method": method})
    base = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**shape), dtype=dtype, attn_implementation=attention.PACKED_ATTENTION
    ).to(device)
    tuned = order.method.wrap(base).to(device).train()
    fast_lora.speed_up_lora(tuned, dtype != torch.float32)
    row = {"input_ids": list(range(length)), "labels": list(range(length))}
    rows = auto.packed_tokens(order, devices()[0], length) // length
    one_row = step_seconds(tuned, collate([row], True), device, dtype)
    all_rows = step_seconds(tuned, collate([row] * rows, True), device, dtype)
    # Seconds of a row. On a busy computer the short step can look long: hence the lower bound.
    per_row = max((all_rows - one_row) / (rows - 1), 0.1 * all_rows / rows)
    work = length * duration.work(model.from_config(shape), order, length, 1.0, False)
    return work / per_row, max(0.0, one_row - per_row) / shape["num_hidden_layers"]


def step_seconds(tuned: Any, micro_batch: dict[str, Any], device: str, dtype: torch.dtype) -> float:
    """The median over some seconds of steps, the first two not counted: they compile kernels."""
    inputs = model_inputs(micro_batch, device)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            total = loss(tuned, inputs, "chunked", dtype)
        total.backward()
        tuned.zero_grad(set_to_none=True)
        if device != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main(device: str, dtype: torch.dtype) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(cores())
    torch.set_flush_denormal(True)
    attention.register()
    start = time.perf_counter()
    measured = {kind: measure(device, dtype, method) for kind, method in METHODS.items()}
    answer = {
        "rates": {kind: rate for kind, (rate, _) in measured.items()},
        "launch": {kind: seconds for kind, (_, seconds) in measured.items()},
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], getattr(torch, sys.argv[2]))
