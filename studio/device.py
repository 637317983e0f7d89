"""The available accelerators, as reported by their drivers (driver/), without torch."""

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

os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # in all our processes a card's index is nvidia-smi's

DEVICE_VARIABLE = "STUDIO_DEVICE"  # "cpu": no card is used
CGROUP = Path("/sys/fs/cgroup")
MIN_NOTICE_MEMORY = 4 * 2**30  # bytes of a card from which on a notice is shown


class Device(BaseModel):
    """One accelerator, or the CPU with its RAM. Memory in bytes."""

    model_config = ConfigDict(frozen=True)
    kind: str  # a row of driver/kinds.py: "cuda", "rocm", "xpu", "mps" or "cpu"
    index: int = 0  # among the devices visible to this process
    name: str
    memory: int
    free: int
    capability: tuple[int, int] | None = None  # CUDA compute capability, e.g. (8, 6)
    bf16: bool = False
    utilisation: int | None = None  # percent
    temperature: int | None = None  # °C
    cores: int | None = None
    uuid: str | None = None  # the same in every process
    number: int = 0  # among all of the computer's devices
    shared: bool = False  # whether its memory is the computer's RAM

    @property
    def traits(self) -> Kind:
        """The properties of its kind."""
        return KINDS[self.kind]

    @property
    def torch(self) -> str:
        """The torch device in this process: "cuda:0", "xpu:1", "mps", "cpu"."""
        return f"{self.traits.torch}:{self.index}" if self.traits.cards else self.traits.torch

    @property
    def id(self) -> str:
        """Its name in a run's events: "cuda:0", "rocm:1", "cpu"."""
        return f"{self.kind}:{self.index}" if self.traits.cards else self.kind

    @property
    def precision(self) -> str:
        """The precision of `auto`: bf16, fp16 or fp32."""
        return "bf16" if self.bf16 else self.traits.half


class DeviceScan(NamedTuple):
    """devices: at least one, the default first. notices: what a user should know about them."""

    devices: list[Device]
    notices: list[Notice]


def devices() -> list[Device]:
    """The accelerators visible to this process (CUDA_VISIBLE_DEVICES and the like), else the CPU; the default first."""
    return scan_devices().devices


def scan_devices() -> DeviceScan:
    """AMD's or Intel's cards if the installed torch is built for them, else NVIDIA's, else Apple's GPU, else the CPU.

    STUDIO_DEVICE=cpu uses no card. AMD or Intel graphics are in most laptops: with another torch they only get a
    notice.
    """
    if os.environ.get(DEVICE_VARIABLE) == "cpu":
        return DeviceScan([cpu()], [])
    installed = build()
    cards, notices = nvidia.cards()
    if installed and installed.hip and (amd := sysfs.amd()):
        return DeviceScan(_to_devices("rocm", amd), notices)
    if installed and installed.xpu and (intel := sysfs.intel()):
        return DeviceScan(_to_devices("xpu", intel), notices + _unknown_memory_notices(intel))
    if cards:
        return DeviceScan(_to_devices("cuda", cards), notices)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        bf16 = int((platform.mac_ver()[0] or "14").split(".")[0]) >= 14  # Metal has bf16 from macOS 14 on
        mps = {"kind": "mps", "name": "Apple GPU (shared memory)", "bf16": bf16, "shared": True}
        return DeviceScan([cpu().model_copy(update=mps)], notices)
    return DeviceScan([cpu()], notices + _unused_card_notices(installed.describe() if installed else "no torch"))


def environment(chosen: list[Device]) -> dict[str, str]:
    """Variables that make a process see only these cards, in this order; for the CPU none: torch would count the
    memory of a card that is there.
    """
    if chosen and chosen[0].kind == "cpu":
        return dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "")
    variable = chosen[0].traits.visible if chosen else None
    if variable is None:
        return {}
    value = ",".join(visible(device) for device in chosen)
    if chosen[0].kind == "rocm":
        return {variable: value, "CUDA_VISIBLE_DEVICES": value}  # HIP reads both
    return {variable: value}


def default_environment() -> dict[str, str]:
    """Variables for a process that computes on the default device."""
    return environment(devices()[:1])


def visible(device: Device) -> str:
    """The card's name in its kind's variable: its UUID if the variable allows it, the same in every process."""
    names = [word.strip() for word in os.environ.get(device.traits.visible or "", "").split(",") if word.strip()]
    if device.kind == "cuda":
        return device.uuid or (names[device.index] if device.index < len(names) else str(device.index))
    return str(device.number)


def _to_devices(kind: str, cards: list[Card]) -> list[Device]:
    """Devices in the order of this process's indexes where the user selected cards, else by memory, largest first."""
    total, free = _ram()
    listed = [
        Device(
            kind=kind,
            index=index,
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
        for index, card in enumerate(cards)
    ]
    if KINDS[kind].visible in os.environ:
        return listed
    return sorted(listed, key=lambda device: (device.shared, -round(device.memory / 2**30)))


def _unknown_memory_notices(cards: list[Card]) -> list[Notice]:
    return [
        Notice(
            f"The memory of {card.name} ({card.uuid}) is not known: it is taken for the computer's.",
            "Install xpu-smi, which tells it.",
        )
        for card in cards
        if card.memory is None and card.uuid != f"PCI-{sysfs.INTEGRATED}"
    ]


def _unused_card_notices(torch: str) -> list[Notice]:
    """Notices of cards that lack a driver or a torch."""
    notices = []
    if sysfs.pci_addresses(sysfs.NVIDIA) and not sysfs.ROOT.joinpath("module", "nvidia").exists():
        notices.append(
            Notice(
                "There is an NVIDIA card, but NVIDIA's driver is not loaded: the CPU is used.",
                "Install the driver your system offers for it, restart the computer, and start again.",
            )
        )
    for kind, cards in (
        ("rocm", [card for card in sysfs.amd() if (card.memory or 0) >= MIN_NOTICE_MEMORY]),
        ("xpu", [card for card in sysfs.intel() if (card.memory or 0) >= MIN_NOTICE_MEMORY]),
    ):
        notices += [
            Notice(
                f"There is {card.name}, which this {torch} cannot use: the CPU is used.",
                f"Install the one for it: {install(KINDS[kind].index)}",
            )
            for card in cards[:1]
        ]
    return notices


def cpu() -> Device:
    """The CPU and its RAM, within the container's limit."""
    total, free = _ram()
    return Device(kind="cpu", name=_cpu_name(), memory=total, free=free, bf16=_cpu_has_bf16(), cores=cores())


def thread_environment() -> dict[str, str]:
    """Variables for a process that computes beside others: idle OpenMP threads spin for about a microsecond, then
    sleep.

    If they slept at once (OMP_WAIT_POLICY=PASSIVE), every small operation would wait for them: 164 instead of 250
    tokens/s on the bundled sample, 2 cores. If they spin longer, they take the core of the thread they wait for as
    soon as another program is busy too: small products on two cores keep 0.51 of their speed beside an endless loop
    with 1,000 iterations, 0.23 with 10,000 and 0.12 with 100,000, and are as fast alone. The user's own setting is
    kept.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return {}
    return {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}  # libgomp: iterations; LLVM and Intel: ms


def cores() -> int:
    """Cores this process may use: CPU_CORES on a Space, else the affinity mask."""
    count = os.environ.get("CPU_CORES", "")
    if count.replace(".", "", 1).isdigit() and float(count) >= 1:
        return int(float(count))
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
            limit = int((CGROUP / limit_file).read_text())
            used = int((CGROUP / used_file).read_text()) - _reclaimable(CGROUP / used_file)
        except (OSError, ValueError):
            continue
        if limit < total:
            total, free = limit, min(free, limit - used)
    return total, free


def _reclaimable(used_file: Path) -> int:
    """Bytes of file cache that a cgroup counts as used and gives up at once: files read, such as a model's weights."""
    try:
        stat = dict(line.split() for line in used_file.with_name("memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


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
    """Whether it has bf16 products (AVX512-BF16, AMX or Arm's bf16), without which bf16 is slower than float32."""
    flags = _cpu_flags()
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
