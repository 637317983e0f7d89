"""The highest memory so far, as the device counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
_most: dict[
    str, int
] = {}  # what was told before: the kernel sums its threads' counts up now and then, and its mark may fall by some pages


def highest() -> dict[str, int]:
    """Bytes: {"reserved", "allocated"} of the CUDA allocator, or {"resident"} of this process's RAM. Never less than before."""
    now = (
        {"reserved": torch.cuda.max_memory_reserved(), "allocated": torch.cuda.max_memory_allocated()}
        if torch.cuda.is_available()
        else {"resident": _resident()}
    )
    _most.update({name: max(size, _most.get(name, 0)) for name, size in now.items()})
    return dict(_most)


def peak_memory() -> int:
    """Bytes at the highest moment so far: reserved by the CUDA allocator, else of this process's RAM."""
    return next(iter(highest().values()))


def _resident() -> int:
    """From the kernel's own mark; getrusage's begins with what the process that started this one held."""
    try:
        return next(
            int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")
        )
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
