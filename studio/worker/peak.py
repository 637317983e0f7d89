"""The highest memory so far, as the device counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def highest() -> dict[str, int]:
    """Bytes: {"reserved", "allocated"} of the CUDA allocator, or {"resident"} of this process's RAM."""
    if torch.cuda.is_available():
        return {"reserved": torch.cuda.max_memory_reserved(), "allocated": torch.cuda.max_memory_allocated()}
    return {"resident": _resident()}


def peak_memory() -> int:
    """Bytes at the highest moment so far: reserved by the CUDA allocator, else of this process's RAM."""
    return next(iter(highest().values()))


def _resident() -> int:
    """From the kernel's own mark; getrusage's begins with what the process that started this one held."""
    try:
        return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
