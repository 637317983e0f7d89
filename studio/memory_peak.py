"""The peak of this process's RAM, as the kernel counts it, without what could be dropped at any time."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc_pid_clear_refs(5): the peak begins anew at what is resident now
M_MMAP_THRESHOLD = -3  # malloc.h
MAPPED = 1 << 23  # bytes of a block that gets a mapping of its own while weights are packed
USUAL = 1 << 25  # what glibc raises it to by itself, and the most that some of its releases take
INT_MAX = 2**31 - 1  # of mallopt
_before = [0]  # bytes: the highest peak before begin_anew


def resident_peak() -> int:
    """Bytes: the kernel's own mark (getrusage's begins with what the parent process held), or that of before."""
    try:
        peak = _status("VmHWM")
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(peak, *_before)


def begin_anew() -> None:
    """Let the peak begin anew, at the least at what is resident now.

    For when a mapped file has been read through and closed: its pages were the kernel's to drop, and no need.
    """
    gc.collect()
    with contextlib.suppress(OSError, StopIteration):  # no /proc: the peak stays
        _before[0] = max(_before[0], _status("VmRSS"))
        CLEAR.write_text(RESET_PEAK)


def trim() -> None:
    """Give the heap's empty pages back."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def blocks_mapped() -> Iterator[None]:
    """While it lasts, larger blocks of the heap have mappings of their own, which go back when they are freed.

    For passing many large blocks by: in the heap each would leave a hole below what is kept of it.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, MAPPED)
    try:
        yield
    finally:
        ordered = min(int(os.environ.get("MALLOC_MMAP_THRESHOLD_", USUAL)), INT_MAX)
        if not libc.mallopt(M_MMAP_THRESHOLD, ordered):  # 0: refused as too large
            libc.mallopt(M_MMAP_THRESHOLD, USUAL)


def _status(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
