"""Drivers that are simpler than the real ones: NVIDIA's library, and the kernel's files about AMD's and Intel's
cards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GB = 1 << 30


class NVMLError(Exception):
    """As NVML's: what it says is its text."""


def lost(*_: Any) -> Any:
    raise NVMLError("GPU is lost")


class Driver(SimpleNamespace):
    """pynvml with these cards: {name, uuid, memory?, capability?, slices?, fails?: {function: exception raiser}}.

    started: calls of nvmlInit.
    """

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *cards: dict[str, Any], version: str = "580.65.06", cuda: int = 13000, **more: Any):
        super().__init__(cards=cards, version=version, cuda=cuda, started=0, **more)

    def nvmlInit(self) -> None:
        self.started += 1

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> dict[str, Any]:
        card = self.cards[number]
        return card.get("fails", {}).get("nvmlDeviceGetHandleByIndex", lambda: card)()

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.version

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return self.cuda

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers = {
            "nvmlDeviceGetUUID": lambda card: card["uuid"],
            "nvmlDeviceGetName": lambda card: card["name"],
            "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(
                total=card["memory"], free=card["memory"] - GB // 2
            ),
            "nvmlDeviceGetCudaComputeCapability": lambda card: card["capability"],
            "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=card["load"]),
            "nvmlDeviceGetTemperature": lambda card, _: card["temperature"],
        }
        if name not in answers:
            raise AttributeError(name)

        def asked(card: dict[str, Any], *more: Any) -> Any:
            try:
                return card.get("fails", {}).get(name, answers[name])(card, *more)
            except KeyError as error:
                raise NVMLError("Not Supported") from error

        return asked


class Sliced(Driver):
    """A driver that knows MIG: cards with `slices` are cut; each slice is {uuid, memory, instance}."""

    def nvmlDeviceGetMigMode(self, card: dict[str, Any]) -> list[int]:
        return [int("slices" in card)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, card: dict[str, Any]) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: dict[str, Any], number: int) -> dict[str, Any]:
        if number >= len(card["slices"]):
            raise NVMLError("Not Found")
        return card["slices"][number]

    def nvmlDeviceGetGpuInstanceId(self, card: dict[str, Any]) -> int:
        return card["instance"]

    def nvmlDeviceGetComputeInstanceId(self, card: dict[str, Any]) -> int:
        return 0


def file(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def amd(
    root: Path,
    number: int = 0,
    *,
    vram: int = 24 * GB,
    used: int = GB,
    gfx: int = 110000,
    cores: int = 0,
    device: str = "0x744c",
    unique: int = 0xABC0,
) -> None:
    """A tree of /sys with one more card of AMD's, as amdgpu and kfd write it."""
    card = root / "class" / "drm" / f"card{number}" / "device"
    for name, value in {
        "vendor": "0x1002",
        "device": device,
        "revision": "0xc8",
        "mem_info_vram_total": vram,
        "mem_info_vram_used": used,
        "mem_info_gtt_total": 32 * GB,
        "mem_info_gtt_used": 0,
        "gpu_busy_percent": 3,
    }.items():
        file(card / name, value)
    render = root / "class" / "drm" / f"renderD{128 + number}"
    render.mkdir(parents=True, exist_ok=True)
    (render / "device").symlink_to(card)
    nodes = root / "class" / "kfd" / "kfd" / "topology" / "nodes"
    file(nodes / "0" / "properties", "cpu_cores_count 16\nsimd_count 0")
    file(
        nodes / str(number + 1) / "properties",
        (
            f"cpu_cores_count {cores}\nsimd_count 96\ngfx_target_version {gfx}\n"
            f"unique_id {unique + number}\ndrm_render_minor {128 + number}"
        ),
    )


def intel(root: Path, number: int = 0, *, vram: int | None = 16 * GB) -> None:
    """A tree of /sys with one more card of Intel's, as xe writes it; without vram: graphics in the processor."""
    address = f"0000:0{number + 3}:00.0" if vram else "0000:00:02.0"
    real = root / "devices" / address
    file(real / "vendor", "0x8086")
    if vram:
        file(real / "tile0" / "physical_vram_size_bytes", hex(vram))
    card = root / "class" / "drm" / f"card{number}"
    card.mkdir(parents=True)
    (card / "device").symlink_to(real)
