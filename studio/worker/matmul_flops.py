"""python -m studio.worker.matmul_flops KIND DTYPE: prints the FLOP/s that one large matrix product reaches here."""

from __future__ import annotations

import sys
import time

import torch

WIDTH = {"cuda": 8192, "cpu": 2048}
SECONDS = 3.0


def measure(kind: str, dtype: torch.dtype, width: int | None = None, seconds: float = SECONDS) -> float:
    """2 · width³ by the median time of a product, the first three not counted."""
    width = width or WIDTH.get(kind, 4096)
    left, right, out = (torch.randn(width, width, device=kind).to(dtype) for _ in range(3))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 8 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        if kind != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
    counted = sorted(times[3:])
    return 2 * width**3 / counted[len(counted) // 2]


if __name__ == "__main__":
    print(measure(sys.argv[1], getattr(torch, sys.argv[2])))
