"""The trainer's settings of glibc's malloc: what a training step allocates and frees fits in again where it was."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from studio import config, device
from studio.runs import launch

STEP = """
import ctypes
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
libc.mallinfo2.restype, libc.malloc.restype = Info, ctypes.c_void_p
libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]
libc.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]

def tensor(size):  # as torch allocates on a CPU
    place = ctypes.c_void_p()
    libc.posix_memalign(ctypes.byref(place), 64, size)
    return place.value

def step():
    kept = []
    for size in (1 << 20, 3 << 20, 1 << 20, 9 << 20) * 30:
        first, node, second = tensor(size), libc.malloc(72), tensor(size)
        kept += [node, libc.malloc(40)]
        libc.free(first)
        kept += [libc.malloc(104), tensor(size)]
        libc.free(second)
    info = libc.mallinfo2()
    for place in reversed(kept):
        libc.free(place)
    return (info.arena + info.hblkhd) / (info.uordblks + info.hblkhd)

step()
print(step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_a_step_tears_no_holes() -> None:
    order = config.build({"data": {"train": "rows.json"}})
    torn, whole = (
        float(subprocess.run([sys.executable, "-c", STEP], env=os.environ | variables, capture_output=True).stdout)
        for variables in (
            launch.environment(order, device.cpu()) | {"GLIBC_TUNABLES": ""},
            launch.environment(order, device.cpu()),
        )
    )
    assert whole - 1 < (torn - 1) / 2  # the share of holes: 0.20 to 0.25 by machine (where the heap begins), not 0.95


def test_a_card_s_host_keeps_its_quick_small_blocks() -> None:
    order = config.build({"data": {"train": "rows.json"}})
    card = device.cpu().model_copy(update={"kind": "cuda"})
    assert "tcache" not in launch.environment(order, card)["GLIBC_TUNABLES"]
    assert "tcache" in launch.environment(order, device.cpu())["GLIBC_TUNABLES"]
