"""Which accelerators there are, asked of their drivers (driver/), never of torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from studio.driver import nvidia, sysfs
from studio.driver.build import build, install
from studio.driver.card import Card, Notice
from studio.driver.kinds import KINDS, Kind

os.environ["CUDA_DEVICE_ORDER"] = (
    "PCI_BUS_ID"  # for every process we start, and for ours: a card's number is the driver's (nvidia-smi's)
)


CHOSEN = "STUDIO_DEVICE"  # "cpu": the cards are left alone
SMALLEST = 4 * 2**30  # bytes of a card that is worth a notice


class Device(BaseModel):
    """One accelerator, or the CPU with its RAM. Memory in bytes."""

    model_config = ConfigDict(frozen=True)
    kind: str  # a row of driver/kinds.py: "cuda", "rocm", "xpu", "mps" or "cpu"
    index: int = 0  # its place among those that this process sees
    name: str
    memory: int
    free: int
    capability: tuple[int, int] | None = None  # CUDA compute capability, e.g. (8, 6)
    bf16: bool = False
    utilisation: int | None = None  # percent
    temperature: int | None = None  # °C
    cores: int | None = None
    uuid: str | None = None  # the driver's name for it, the same in every process
    number: int = 0  # its place among all of the computer's
    shared: bool = False  # whether its memory is the computer's RAM

    @property
    def traits(self) -> Kind:
        """What holds for all devices of its kind."""
        return KINDS[self.kind]

    @property
    def torch(self) -> str:
        """The torch device in this process: "cuda:0", "xpu:1", "mps", "cpu"."""
        return f"{self.traits.torch}:{self.index}" if self.traits.cards else self.traits.torch

    @property
    def id(self) -> str:
        """What the diary calls it: "cuda:0", "rocm:1", "cpu"."""
        return f"{self.kind}:{self.index}" if self.traits.cards else self.kind

    @property
    def precision(self) -> str:
        """The precision it trains in when the order leaves it open: bf16, fp16 or fp32."""
        return "bf16" if self.bf16 else self.traits.half


class DeviceScan(NamedTuple):
    """devices: never none, the one to use first in front. notices: what a user should know about them."""

    devices: list[Device]
    notices: list[Notice]


def devices() -> list[Device]:
    """The accelerators that a run can take (CUDA_VISIBLE_DEVICES and its like honoured), else the CPU. The first one is used by default."""
    return scan_devices().devices


def scan_devices() -> DeviceScan:
    """What the drivers show: NVIDIA's cards; AMD's or Intel's where the installed torch is made for them; Apple's; else the CPU.

    STUDIO_DEVICE=cpu leaves all cards alone. Graphics of AMD or Intel sit in most laptops: beside another torch they are no reason not to use
    the CPU, only worth a notice.
    """
    if os.environ.get(CHOSEN) == "cpu":
        return DeviceScan([cpu()], [])
    made = build()
    cards, notices = nvidia.cards()
    if made and made.hip and (found := sysfs.amd()):
        return DeviceScan(_of("rocm", found), notices)
    if made and made.xpu and (found := sysfs.intel()):
        return DeviceScan(_of("xpu", found), notices + _unknown(found))
    if cards:
        return DeviceScan(_of("cuda", cards), notices)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        here = cpu()
        recent = tuple(map(int, (platform.mac_ver()[0] or "14").split(".")[:1])) >= (
            14,
        )  # Metal computes in bf16 from macOS 14 on
        return DeviceScan(
            [
                here.model_copy(
                    update={"kind": "mps", "name": "Apple GPU (shared memory)", "bf16": recent, "shared": True}
                )
            ],
            notices,
        )
    return DeviceScan([cpu()], notices + _unused(made.describe() if made else "no torch"))


def environment(chosen: list[Device]) -> dict[str, str]:
    """For a process that is to see these cards and no other, in this order; empty for what is no card."""
    variable = chosen[0].traits.visible if chosen else None
    if variable is None:
        return {}
    words = ",".join(visible(one) for one in chosen)
    return (
        {variable: words} if chosen[0].kind != "rocm" else {variable: words, "CUDA_VISIBLE_DEVICES": words}
    )  # HIP reads both; they must agree


def default_environment() -> dict[str, str]:
    """For a process of ours that computes on one device: the one that `devices` names first."""
    return environment(devices()[:1])


def visible(device: Device) -> str:
    """What names a card in its kind's variable. By its driver's name where the variable takes one, so that every process means the same card."""
    named = [word.strip() for word in os.environ.get(device.traits.visible or "", "").split(",") if word.strip()]
    if device.kind == "cuda":
        return device.uuid or (named[device.index] if device.index < len(named) else str(device.index))
    return str(device.number)


def _of(kind: str, cards: list[Card]) -> list[Device]:
    """Devices in the order in which this process counts them, but those with more memory in front where the user has chosen none."""
    total, free = _ram()
    found = [
        Device(
            kind=kind,
            index=place,
            name=card.name,
            memory=card.memory or total,
            free=free if card.memory is None else card.free or 0,
            capability=card.capability,
            bf16=card.bf16,
            utilisation=card.utilisation,
            temperature=card.temperature,
            cores=cores(),
            uuid=card.uuid,
            number=card.number,
            shared=card.memory is None,
        )
        for place, card in enumerate(cards)
    ]
    if KINDS[kind].visible in os.environ:
        return found
    return sorted(found, key=lambda one: (one.shared, -round(one.memory / 2**30)))


def _unknown(cards: list[Card]) -> list[Notice]:
    return [
        Notice(
            f"The memory of {card.name} ({card.uuid}) is not known: it is taken for the computer's.",
            "Install xpu-smi, which tells it.",
        )
        for card in cards
        if card.memory is None and card.uuid != f"PCI-{sysfs.INSIDE}"
    ]


def _unused(torch: str) -> list[Notice]:
    """Cards that could compute, were there what they need."""
    found = []
    if sysfs.others(sysfs.NVIDIA) and not sysfs.ROOT.joinpath("module", "nvidia").exists():
        found.append(
            Notice(
                "There is an NVIDIA card, but NVIDIA's driver is not loaded: the CPU is used.",
                "Install the driver your system offers for it, restart the computer, and start again.",
            )
        )
    for kind, cards in (
        ("rocm", [card for card in sysfs.amd() if (card.memory or 0) >= SMALLEST]),
        ("xpu", [card for card in sysfs.intel() if (card.memory or 0) >= SMALLEST]),
    ):
        found += [
            Notice(
                f"There is {card.name}, which this {torch} cannot use: the CPU is used.",
                f"Install the one for it: {install(KINDS[kind].index)}",
            )
            for card in cards[:1]
        ]
    return found


def cpu() -> Device:
    """The CPU and its RAM; inside a container, the container's limit and its own use."""
    total, free = _ram()
    return Device(kind="cpu", name=_cpu_name(), memory=total, free=free, bf16=_cpu_has_bf16(), cores=cores())


def thread_environment() -> dict[str, str]:
    """Environment for a process that computes beside others: its threads look a few microseconds for their next work, then sleep.

    Asleep at once (OMP_WAIT_POLICY=PASSIVE) every small operation waits for its threads to wake: 164 instead of 250 tokens a second on the
    bundled sample, 2 cores. Spinning on (libgomp's default), two such processes on the same cores took a quarter longer. What the user has
    set stands.
    """
    return (
        {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
    )  # libgomp: turns; LLVM's and Intel's: ms


def cores() -> int:
    """Cores this process may use: CPU_CORES on a Space, else the affinity mask."""
    named = os.environ.get("CPU_CORES", "")
    if named.replace(".", "", 1).isdigit() and float(named) >= 1:
        return int(float(named))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ram() -> tuple[int, int]:
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = int(Path("/sys/fs/cgroup", limit_file).read_text())
            used = int(Path("/sys/fs/cgroup", used_file).read_text())
        except (OSError, ValueError):
            continue
        if limit < total:
            total, free = limit, min(free, limit - used)
    return total, free


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu_name() -> str:
    for line in _cpu_flags().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "CPU"


def _cpu_has_bf16() -> bool:
    """bf16 products in hardware (AVX512-BF16 or AMX, or Arm's bf16): without them bf16 is slower than float32."""
    flags = _cpu_flags()
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
