"""The kinds of device, one row each. All code that distinguishes devices uses this table."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class Kind:
    """Properties of a kind of device.

    torch: the type of its torch.device. cards: whether it is cards with their own memory, one run each; else all
    share the computer's RAM. visible: the environment variable that selects cards. half: the precision of `auto`
    without bf16. fp16: whether training in fp16 works. quantizes, pages: whether bitsandbytes' 4- and 8-bit base
    models, and its paged optimizers, work. workers: data loader processes. launch: least seconds of a layer per
    micro-batch; bandwidth: of memory, bytes/s; speed: dense 16-bit FLOP/s of a card without a data sheet
    (None for a CPU: from its cores). index: the index of torch 2.13's wheels for it.
    """

    torch: str
    label: str
    _: KW_ONLY
    half: str
    launch: float
    bandwidth: float
    index: str
    cards: bool = False
    visible: str | None = None
    fp16: bool = False
    quantizes: bool = False
    pages: bool = False
    workers: int = 0
    speed: float | None = None


KINDS = {
    "cpu": Kind("cpu", "CPU", half="fp32", quantizes=True, launch=2e-2, bandwidth=8e9, index="cpu"),
    "cuda": Kind(
        "cuda", "NVIDIA", cards=True, visible="CUDA_VISIBLE_DEVICES", half="fp16", fp16=True, quantizes=True,
        pages=True, workers=1, launch=1.5e-3, bandwidth=8e11, speed=100e12, index="cu130"
    ),
    "rocm": Kind(
        "cuda", "AMD", cards=True, visible="HIP_VISIBLE_DEVICES", half="fp16", fp16=True, quantizes=True,
        workers=1, launch=1.5e-3, bandwidth=8e11, speed=100e12, index="rocm7.2"
    ),
    "xpu": Kind(
        "xpu", "Intel", cards=True, visible="ZE_AFFINITY_MASK", half="fp32", fp16=True, quantizes=True,
        workers=1, launch=3e-3, bandwidth=4e11, speed=50e12, index="xpu"
    ),
    "mps": Kind("mps", "Apple", half="fp32", fp16=True, launch=3e-3, bandwidth=1e11, speed=5e12, index="cpu"),
}  # fmt: skip
