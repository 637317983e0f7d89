"""The kinds of device, one row each. Every place that treats devices unlike asks this table, and a test walks it."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """torch: the type of its torch.device. cards: cards with memory of their own, one run each; else all share the computer's RAM.

    visible: the environment variable that chooses cards. half: the precision that auto means where there is no bf16. fp16: whether
    training in fp16 works. quantizes, pages: bitsandbytes' 4- and 8-bit bases, and its optimizers in managed memory. workers:
    processes that prepare batches ahead. launch: seconds a layer and piece take however short; moved: bytes a second, to and from
    memory; speed: dense 16-bit FLOP/s of a card whose data sheet is not known (of a CPU: counted by its cores). index: of torch's wheels
    for it (those of torch 2.13).
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
