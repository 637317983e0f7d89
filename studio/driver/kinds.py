"""The kinds of device, one row each. All code that distinguishes devices uses this table."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """Properties of a kind of device.

    torch: the type of its torch.device. cards: whether it is cards with their own memory, one run each; else all
    share the computer's RAM. visible: the environment variable that selects cards. half: the precision of `auto`
    without bf16. fp16: whether training in fp16 works. quantizes, pages: whether bitsandbytes' 4- and 8-bit base
    models, and its paged optimizers, work. workers: data loader processes. launch: least seconds of a layer per
    micro-batch; moved: memory bandwidth in bytes/s; speed: dense 16-bit FLOP/s of a card without a data sheet
    (None for a CPU: from its cores). index: the index of torch 2.13's wheels for it.
    """

    torch: str
    label: str
    cards: bool
    visible: str | None
    half: str
    fp16: bool
    quantizes: bool
    pages: bool
    workers: int
    launch: float
    moved: float
    speed: float | None
    index: str  # type: ignore[assignment]


KINDS = {
    "cpu": Kind("cpu", "CPU", False, None, "fp32", False, True, False, 0, 2e-2, 8e9, None, "cpu"),
    "cuda": Kind(
        "cuda", "NVIDIA", True, "CUDA_VISIBLE_DEVICES", "fp16", True, True, True, 1, 1.5e-3, 8e11, 100e12, "cu130"
    ),
    "rocm": Kind(
        "cuda", "AMD", True, "HIP_VISIBLE_DEVICES", "fp16", True, True, False, 1, 1.5e-3, 8e11, 100e12, "rocm7.2"
    ),
    "xpu": Kind("xpu", "Intel", True, "ZE_AFFINITY_MASK", "fp32", True, True, False, 1, 3e-3, 4e11, 50e12, "xpu"),
    "mps": Kind("mps", "Apple", False, None, "fp32", True, False, False, 0, 3e-3, 1e11, 5e12, "cpu"),
}
