"""Graphics cards from the kernel's files in /sys: AMD's of amdgpu and kfd, Intel's of i915 and xe.

Sources: the kernel's documentation of amdgpu (mem_info_vram_total, mem_info_vram_used, gpu_busy_percent),
amdkfd's topology (gfx_target_version, unique_id, drm_render_minor), and that of xe and i915
(tile0/physical_vram_size_bytes, lmem_total_bytes).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import credentials
from studio.driver.card import Card

ROOT = Path(os.environ.get("STUDIO_SYSFS", "/sys"))  # tests set a tree of their own
IDS = Path("/usr/share/libdrm/amdgpu.ids")  # "744C, C8, AMD Radeon RX 7900 XTX"
AMD, INTEL, NVIDIA = "0x1002", "0x8086", "0x10de"
INTEGRATED = "0000:00:02.0"  # the PCI address of Intel's integrated graphics
# MI100; MI200; MI300; MI350; RDNA 3 and what follows
BF16_ARCHITECTURES = ((9, 0, 8), (9, 0, 10), (9, 4, 0), (9, 5, 0), (11, 0, 0))


def amd() -> list[Card]:
    """AMD's compute cards in ROCm's order (kfd's nodes), filtered by ROCR_, HIP_ and CUDA_VISIBLE_DEVICES."""
    cards = [card for number, node in enumerate(_nodes()) if (card := _amd_card(number, *node)) is not None]
    for names in (("ROCR_VISIBLE_DEVICES",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")):
        value = next((os.environ[name] for name in names if name in os.environ), None)
        cards = cards if value is None else list(_named(cards, value))
        if names[0].startswith("ROCR"):
            cards = [card._replace(number=index) for index, card in enumerate(cards)]  # HIP counts what ROCR leaves
    return cards


def intel() -> list[Card]:
    """Intel's cards, filtered by ZE_AFFINITY_MASK. Integrated graphics have no memory of their own."""
    folders = [(folder, folder.resolve().name) for folder in _cards(INTEL)]
    totals = [
        _number(folder / "tile0" / "physical_vram_size_bytes") or _number(folder.parent / "lmem_total_bytes")
        for folder, _ in folders
    ]
    smi = _xpu_smi(tuple(address for _, address in folders)) if None in totals else {}
    cards = []
    for (folder, address), total in zip(folders, totals, strict=True):
        properties = smi.get(address.lower(), {})
        total = total or _whole(properties.get("memory_physical_size_byte"))
        name = properties.get("device_name") or (
            "Intel graphics card" if total or address != INTEGRATED else "Intel graphics"
        )
        free = _number(folder.parent / "lmem_avail_bytes") or total
        cards.append(Card(name, f"PCI-{address}", 0, total, min(total, free or total) if total else None, True))
    cards.sort(key=lambda card: card.uuid == f"PCI-{INTEGRATED}")  # Level Zero counts cards before integrated graphics
    cards = [card._replace(number=index) for index, card in enumerate(cards)]
    value = os.environ.get("ZE_AFFINITY_MASK")
    return cards if value is None else list(_named(cards, value))


def pci_addresses(vendor: str) -> list[str]:
    """PCI addresses of all of a vendor's graphics cards, with or without a driver."""
    devices = ROOT.glob("bus/pci/devices/*")
    return sorted(
        path.name
        for path in devices
        if _text(path / "vendor") == vendor and (_text(path / "class") or "").startswith("0x03")
    )


def _cards(vendor: str) -> list[Path]:
    """/sys/class/drm/cardN/device of a vendor's cards, by number."""
    cards = [path for path in ROOT.glob("class/drm/card*") if re.fullmatch(r"card\d+", path.name)]
    return [
        card / "device"
        for card in sorted(cards, key=lambda path: int(path.name[4:]))
        if _text(card / "device" / "vendor") == vendor
    ]


def _nodes() -> list[tuple[dict[str, int], Path | None]]:
    """(properties, card's folder) of kfd's GPU nodes; without kfd (no permission, old kernel), amdgpu's cards only."""
    folders = sorted(
        ROOT.glob("class/kfd/kfd/topology/nodes/*"), key=lambda path: int(path.name) if path.name.isdigit() else 0
    )
    nodes = [properties for folder in folders if (properties := _properties(folder / "properties")).get("simd_count")]
    if not folders:
        return [({}, card) for card in _cards(AMD)]
    cards = _cards(AMD)
    pairs: list[tuple[dict[str, int], Path | None]] = []
    for index, properties in enumerate(nodes):
        card = ROOT / "class" / "drm" / f"renderD{properties.get('drm_render_minor', 0)}" / "device"
        pairs.append((properties, card if card.exists() else next(iter(cards[index:]), None)))
    return pairs


def _properties(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in (_text(file) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _amd_card(number: int, properties: dict[str, int], card: Path | None) -> Card | None:
    """The card of a kfd node; None if its memory is unknown."""
    if card is None:
        return None
    total, used = _number(card / "mem_info_vram_total"), _number(card / "mem_info_vram_used") or 0
    if total and properties.get("cpu_cores_count"):  # an APU: ROCm uses the computer's memory too
        total += _number(card / "mem_info_gtt_total") or 0
        used += _number(card / "mem_info_gtt_used") or 0
    if not total:
        return None
    version = properties.get("gfx_target_version", 0)
    gfx = version // 10000, version // 100 % 100, version % 100
    identity = f"GPU-{properties['unique_id']:x}" if properties.get("unique_id") else f"PCI-{card.resolve().name}"
    return Card(
        _amd_name(card, gfx),
        identity,
        number,
        total,
        max(0, total - used),
        _has_bf16(gfx),
        None,
        _number(card / "gpu_busy_percent"),
        next((value // 1000 for file in card.glob("hwmon/hwmon*/temp1_input") if (value := _number(file))), None),
    )


def _has_bf16(gfx: tuple[int, int, int]) -> bool:
    """Whether it has matrix products in bf16: CDNA from MI100 on, RDNA from the third generation on."""
    return gfx >= BF16_ARCHITECTURES[-1] or gfx[:2] in ((9, 4), (9, 5)) or gfx in BF16_ARCHITECTURES


def _amd_name(card: Path, gfx: tuple[int, int, int]) -> str:
    """The product name: from the card, else from libdrm's list, else the architecture's name."""
    product = _text(card / "product_name")
    if product:
        return product if "AMD" in product or "Radeon" in product else f"AMD {product}"
    device, revision = (
        (_text(card / name) or "").removeprefix("0x").upper().zfill(width)
        for name, width in (("device", 4), ("revision", 2))
    )
    listed = re.search(rf"^{device},\s*{revision},\s*(.+)$", _text(IDS) or "", re.M)
    if listed:
        return listed[1].strip()
    return f"AMD card (gfx{gfx[0]}{gfx[1]:x}{gfx[2]:x})" if gfx[0] else "AMD card"


def _named(cards: list[Card], value: str) -> Iterator[Card]:
    """The cards that a variable names by number or by the start of their UUID, up to the first invalid name."""
    for word in filter(None, (part.strip().partition(".")[0] for part in value.split(","))):
        if word.isdigit() and int(word) < len(cards):
            yield cards[int(word)]
        elif card := next(
            (card for card in cards if word.startswith("GPU-") and (card.uuid or "").startswith(word)), None
        ):
            yield card
        else:
            return


@lru_cache(maxsize=4)
def _xpu_smi(addresses: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The properties that Intel's xpu-smi reports of each card, by PCI address; {} if it is not installed."""
    if shutil.which("xpu-smi") is None:
        return {}
    try:
        listed = _json_of(["xpu-smi", "discovery", "-j"])
        properties = {}
        for card in listed.get("device_list", []):
            command = ["xpu-smi", "discovery", "-d", str(card["device_id"]), "-j"]
            details = _json_of(command)
            properties[str(card.get("pci_bdf_address", "")).lower()] = {**card, **details}
        return properties
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return {}


def _json_of(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        command,
        env=credentials.child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return json.loads(done.stdout)


def _number(file: Path) -> int | None:
    return _whole(_text(file))


def _whole(value: Any) -> int | None:
    try:
        return int(str(value), 0)
    except ValueError:
        return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip() or None
    except OSError:
        return None
