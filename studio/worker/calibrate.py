"""python -m studio.worker.calibrate KIND BF16: FLOP/s this device reaches on a LoRA decoder layer, forward and backward. Prints one number."""

from __future__ import annotations

import sys
import time

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

TOKENS, SECONDS = 512, 3.0


def measure(kind: str, dtype: torch.dtype) -> float:
    """Median over some seconds of steps, the first two not counted: they compile kernels."""
    config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, num_hidden_layers=1, attn_implementation="sdpa")
    layer = LlamaDecoderLayer(config, 0).to(kind, dtype).requires_grad_(False)
    hidden = torch.randn(1, TOKENS, 576, device=kind, dtype=dtype, requires_grad=True)
    places = LlamaRotaryEmbedding(config).to(kind)(hidden, torch.arange(TOKENS, device=kind)[None])
    weights = sum(weight.numel() for weight in layer.parameters())
    times, began = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        out = layer(hidden, position_embeddings=places)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
        if kind == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    middle = sorted(times[2:])[len(times[2:]) // 2]
    return 4 * weights * TOKENS / middle * 0.7  # 0.7: what adapters, casts, head and optimizer leave of it


if __name__ == "__main__":
    print(measure(sys.argv[1], torch.bfloat16 if sys.argv[2] == "true" else torch.float32))
