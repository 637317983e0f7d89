"""Model FLOP utilisation: the work a model's training asks for, by the time it took, by what one large matrix product
reaches here.

Counted is what the mathematics asks for, not what a program happens to do: recomputed activations, padding and a head
that is left out where no label is do not count (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from studio.device import Device, environment
from studio.errors import DeviceError
from studio.home import PROJECT
from studio.model import ModelFacts


def flops_per_token(facts: ModelFacts, whole: bool, lengths: Sequence[int]) -> float:
    """FLOP of a token's training. whole: every weight is trained; lengths: tokens of the rows.

    Forward 2 a weight and backward 2 for the gradient of its input; 2 more for its own where it is trained: 4N or 6N, N
    being the weights that stand in products (the linears and the head). Attention with a causal mask: 6 · layers ·
    width · the tokens a token's row has.
    """
    weights = (
        sum(inputs * outputs for inputs, outputs in facts.linears().values()) + facts.vocab_size * facts.hidden_size
    )
    seen = sum(length * length for length in lengths) / max(1, sum(lengths))
    return (
        6 if whole else 4
    ) * weights + 6 * facts.num_hidden_layers * facts.num_attention_heads * facts.head_dim * seen


def ceiling(device: Device) -> float:
    """FLOP/s of a large 16-bit matrix product (float32 on a CPU without bf16), measured in a process of its own. Raises
    DeviceError.
    """
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[device.precision]
    words = ["studio.worker.matmul_flops", device.traits.torch, dtype]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        env={**os.environ, **environment([device])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DeviceError(
            f"{device.name} could not be timed: {(done.stderr.strip().splitlines() or ['no reason'])[-1][:200]}",
            "Leave utilisation out.",
            "device",
        )
    return float(done.stdout.strip().splitlines()[-1])
