"""python -m tests.bench.crowded: what a busy program costs a training step, by how long idle OpenMP threads spin.

A small model's step on all cores, alone and then beside an endless loop of another program; each GOMP_SPINCOUNT in a
process of its own. The choice stands in studio/device.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

COUNTS = (0, 300, 1_000, 10_000, 100_000)
SECONDS = 8.0


def measure() -> None:
    """Print steps/s alone, and the share of it that is left beside an endless loop."""
    import torch

    layers, rows = [torch.nn.Linear(512, 512) for _ in range(120)], torch.randn(48, 512)
    model = torch.nn.Sequential(*layers)

    def speed(seconds: float) -> float:
        began, steps = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            model.zero_grad()
            model(rows).logsumexp(-1).mean().backward()
            steps += 1
        return steps / (time.monotonic() - began)

    speed(SECONDS / 4)
    alone = speed(SECONDS)
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        share = speed(SECONDS) / alone
    finally:
        loop.kill()
        loop.wait()
    print(f"{os.environ['GOMP_SPINCOUNT']:>8} iterations: {alone:5.1f} steps/s alone, {share:.2f} beside", flush=True)


def main() -> int:
    if sys.argv[1:] == ["--measure"]:
        measure()
        return 0
    for count in COUNTS:
        environment = {**os.environ, "GOMP_SPINCOUNT": str(count)}
        subprocess.run([sys.executable, "-m", "tests.bench.crowded", "--measure"], env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
