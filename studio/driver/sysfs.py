"""The kernel's plain files about graphics cards (/sys): AMD's through amdgpu and kfd, Intel's through i915 and xe.

Sources: the kernel's documentation of amdgpu (mem_info_vram_total, mem_info_vram_used, gpu_busy_percent), amdkfd's topology
(gfx_target_version, unique_id, drm_render_minor), and that of xe and i915 (tile0/physical_vram_size_bytes, lmem_total_bytes).
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

from studio.driver.card import Card

ROOT = Path(os.environ.get("STUDIO_SYSFS", "/sys"))  # tests put a tree of their own in its place
IDS = Path("/usr/share/libdrm/amdgpu.ids")  # "744C, C8, AMD Radeon RX 7900 XTX"
AMD, INTEL, NVIDIA = "0x1002", "0x8086", "0x10de"
INSIDE = "0000:00:02.0"  # where Intel's processors have their graphics
BF16 = (9, 0, 8), (9, 0, 10), (9, 4, 0), (9, 5, 0), (11, 0, 0)  # MI100; MI200; MI300; MI350; RDNA 3 and what follows


def amd() -> list[Card]:
    """AMD's cards that can compute, in the order of ROCm's runtime (the nodes of kfd), as ROCR_, HIP_ and CUDA_VISIBLE_DEVICES leave them."""
    found = [card for number, node in enumerate(_nodes()) if (card := _amd_card(number, *node)) is not None]
    for names in (("ROCR_VISIBLE_DEVICES",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")):
        named = next((os.environ[name] for name in names if name in os.environ), None)
        found = found if named is None else list(_named(found, named))
        if names[0].startswith("ROCR"):
            found = [card._replace(number=place) for place, card in enumerate(found)]  # HIP counts what ROCR leaves
    return found


def intel() -> list[Card]:
    """Intel's cards, as ZE_AFFINITY_MASK leaves them. Graphics in the processor have no memory of their own."""
    places = [(card, card.resolve().name) for card in _cards(INTEL)]
    totals = [
        _number(card / "tile0" / "physical_vram_size_bytes") or _number(card.parent / "lmem_total_bytes")
        for card, _ in places
    ]
    asked = _xpu_smi(tuple(address for _, address in places)) if None in totals else {}
    cards = []
    for (card, address), total in zip(places, totals, strict=True):
        told = asked.get(address.lower(), {})
        total = total or _whole(told.get("memory_physical_size_byte"))
        name = told.get("device_name") or ("Intel graphics card" if total or address != INSIDE else "Intel graphics")
        free = _number(card.parent / "lmem_avail_bytes") or total
        cards.append(Card(name, f"PCI-{address}", 0, total, min(total, free or total) if total else None, True))
    cards.sort(key=lambda one: one.uuid == f"PCI-{INSIDE}")  # Level Zero counts cards before what sits in the processor
    cards = [one._replace(number=place) for place, one in enumerate(cards)]
    named = os.environ.get("ZE_AFFINITY_MASK")
    return cards if named is None else list(_named(cards, named))


def others(vendor: str) -> list[str]:
    """PCI addresses of a maker's graphics cards that have no use here: their driver or a fitting torch is missing."""
    devices = ROOT.glob("bus/pci/devices/*")
    return sorted(
        path.name
        for path in devices
        if _text(path / "vendor") == vendor and (_text(path / "class") or "").startswith("0x03")
    )


def _cards(vendor: str) -> list[Path]:
    """/sys/class/drm/cardN/device of a maker's cards, by number."""
    cards = [path for path in ROOT.glob("class/drm/card*") if re.fullmatch(r"card\d+", path.name)]
    return [
        card / "device"
        for card in sorted(cards, key=lambda path: int(path.name[4:]))
        if _text(card / "device" / "vendor") == vendor
    ]


def _nodes() -> list[tuple[dict[str, int], Path | None]]:
    """kfd's nodes that have a GPU, with the card's folder; without kfd (no permission, old kernel), amdgpu's cards alone."""
    folders = sorted(
        ROOT.glob("class/kfd/kfd/topology/nodes/*"), key=lambda path: int(path.name) if path.name.isdigit() else 0
    )
    nodes = [told for folder in folders if (told := _properties(folder / "properties")).get("simd_count")]
    if not folders:
        return [({}, card) for card in _cards(AMD)]
    return [
        (told, _rendered(told.get("drm_render_minor", 0)) or next(iter(_cards(AMD)[place:]), None))
        for place, told in enumerate(nodes)
    ]


def _properties(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in (_text(file) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _rendered(minor: int) -> Path | None:
    card = ROOT / "class" / "drm" / f"renderD{minor}" / "device"
    return card if card.exists() else None


def _amd_card(number: int, told: dict[str, int], card: Path | None) -> Card | None:
    """None for a node whose memory nobody tells: nothing could be said of what fits."""
    if card is None:
        return None
    total, used = _number(card / "mem_info_vram_total"), _number(card / "mem_info_vram_used") or 0
    if total and told.get("cpu_cores_count"):  # a processor with graphics: ROCm gives it the computer's memory too
        total, used = (
            total + (_number(card / "mem_info_gtt_total") or 0),
            used + (_number(card / "mem_info_gtt_used") or 0),
        )
    if not total:
        return None
    version = told.get("gfx_target_version", 0)
    gfx = version // 10000, version // 100 % 100, version % 100
    identity = f"GPU-{told['unique_id']:x}" if told.get("unique_id") else f"PCI-{card.resolve().name}"
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
    """Matrix products in bf16: CDNA's from MI100 on, RDNA's from the third generation on."""
    return gfx >= BF16[-1] or gfx[:2] in ((9, 4), (9, 5)) or gfx in BF16


def _amd_name(card: Path, gfx: tuple[int, int, int]) -> str:
    """The maker's name: from the card, from libdrm's list, or the architecture's."""
    told = _text(card / "product_name")
    if told:
        return told if "AMD" in told or "Radeon" in told else f"AMD {told}"
    device, revision = (
        (_text(card / name) or "").removeprefix("0x").upper().zfill(width)
        for name, width in (("device", 4), ("revision", 2))
    )
    listed = re.search(rf"^{device},\s*{revision},\s*(.+)$", _text(IDS) or "", re.M)
    if listed:
        return listed[1].strip()
    return f"AMD card (gfx{gfx[0]}{gfx[1]:x}{gfx[2]:x})" if gfx[0] else "AMD card"


def _named(cards: list[Card], named: str) -> Iterator[Card]:
    """Those that a variable names by number or by the beginning of their name, up to the first that is none."""
    for word in filter(None, (part.strip().partition(".")[0] for part in named.split(","))):
        if word.isdigit() and int(word) < len(cards):
            yield cards[int(word)]
        elif card := next(
            (one for one in cards if word.startswith("GPU-") and (one.uuid or "").startswith(word)), None
        ):
            yield card
        else:
            return


@lru_cache(maxsize=4)
def _xpu_smi(addresses: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What Intel's xpu-smi tells of each card, by its PCI address; nothing where it is not installed."""
    if shutil.which("xpu-smi") is None:
        return {}
    try:
        listed = json.loads(
            subprocess.run(
                ["xpu-smi", "discovery", "-j"], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
            ).stdout
        )
        found = {}
        for one in listed.get("device_list", []):
            words = ["xpu-smi", "discovery", "-d", str(one["device_id"]), "-j"]
            more = json.loads(
                subprocess.run(words, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL).stdout
            )
            found[str(one.get("pci_bdf_address", "")).lower()] = {**one, **more}
        return found
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return {}


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
