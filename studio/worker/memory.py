"""Memory of the device: its peak so far, giving back what is unused, and telling an out-of-memory error from others."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from studio import memory_peak
from studio.worker import distributed

Item, Result = TypeVar("Item"), TypeVar("Result")
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # words of torch's RuntimeErrors that mean it
# The counters returned last: the kernel's own mark may fall by some pages when it sums up its threads' counts.
_peaks: dict[str, int] = {}


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def in_halves(
    work: Callable[[Sequence[Item]], Result], items: Sequence[Item], without: Callable[[Item], Result] | None = None
) -> list[Result]:
    """The results of `work` on all items at once, or on halves where memory is short: one for each part, in order.

    without: the result of an item that has no room alone; where it is None, its out-of-memory error is raised. So it is
    where several processes share a run, which must all make the same passes.
    """
    try:
        return [work(items)]
    except (RuntimeError, MemoryError) as error:
        has_remedy = len(items) > 1 or without is not None
        if not has_remedy or distributed.world_size() > 1 or not is_out_of_memory(error):
            raise
    empty_cache()  # behind the except: the error holds what the work had allocated
    if without is not None and len(items) == 1:
        return [without(items[0])]
    middle = len(items) // 2
    return in_halves(work, items[:middle], without) + in_halves(work, items[middle:], without)


def unless_short(work: Callable[[], Result]) -> Result | None:
    """The result of `work`; None where memory is too short for it."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    empty_cache()
    return None


def empty_cache() -> None:
    """Collect garbage and have torch's allocator return its empty blocks: other processes see them as free."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def peak_counters() -> dict[str, int]:
    """Bytes, never less than before: "reserved" and "allocated" by the CUDA allocator, else "resident" in RAM."""
    if torch.cuda.is_available():
        counters = {"reserved": torch.cuda.max_memory_reserved(), "allocated": torch.cuda.max_memory_allocated()}
    else:
        counters = {"resident": memory_peak.resident_peak()}
    for name, size in counters.items():
        _peaks[name] = max(size, _peaks.get(name, 0))
    return dict(_peaks)


def peak_memory() -> int:
    """Bytes at the highest moment so far: reserved by the CUDA allocator, else of this process's RAM."""
    return next(iter(peak_counters().values()))
