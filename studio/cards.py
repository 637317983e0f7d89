"""Accelerators that people have, with their makers' figures: memory, bandwidth, dense 16-bit speed."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import NamedTuple

from studio.device import Device
from studio.errors import DeviceError

GIB = 2**30
MIB = 2**20
# words that make another card of a number
MARKS = {
    "ti", "super", "ada", "nvl", "laptop", "mobile", "max", "blackwell"
}  # fmt: skip


class Card(NamedTuple):
    """memory: bytes as the driver shows them (a little less than the label); bandwidth: bytes a second; speed: dense
    16-bit FLOP a second; context: bytes that CUDA itself takes before the first tensor.
    """

    name: str
    memory: int
    bandwidth: float
    speed: float
    capability: tuple[int, int]
    context: int

    @property
    def bf16(self) -> bool:
        return self.capability >= (8, 0)


def _card(
    name: str, gib: float, gigabytes_a_second: float, teraflops: float, capability: tuple[int, int], context: int = 450
) -> Card:
    return Card(name, int(gib * GIB), gigabytes_a_second * 1e9, teraflops * 1e12, capability, context * MIB)


# Makers' data sheets; context: 140.9 MiB was measured on a T4, the rest is what current drivers show.
CARDS = (
    _card("Tesla T4", 14.56, 320, 65, (7, 5), 141),
    _card("Tesla V100 16GB", 15.77, 900, 125, (7, 0), 300),
    _card("Tesla V100 32GB", 31.74, 900, 125, (7, 0), 300),
    _card("NVIDIA A10G", 22.06, 600, 70, (8, 6)),
    _card("NVIDIA A10", 22.06, 600, 125, (8, 6)),
    _card("NVIDIA L4", 22.16, 300, 121, (8, 9)),
    _card("NVIDIA L40S", 44.40, 864, 362, (8, 9)),
    _card("NVIDIA L40", 44.40, 864, 181, (8, 9)),
    _card("NVIDIA A30", 23.60, 933, 165, (8, 0)),
    _card("NVIDIA A40", 44.43, 696, 150, (8, 6)),
    _card("Tesla P100 16GB", 15.89, 732, 19, (6, 0), 300),
    _card("Quadro RTX 8000", 47.46, 672, 130, (7, 5), 200),
    _card("NVIDIA RTX A4000", 15.60, 448, 77, (8, 6)),
    _card("NVIDIA RTX 4000 Ada", 19.60, 360, 107, (8, 9)),
    _card("NVIDIA RTX A5000", 23.68, 768, 111, (8, 6)),
    _card("NVIDIA RTX A6000", 47.43, 768, 155, (8, 6)),
    _card("NVIDIA RTX 6000 Ada", 47.49, 960, 364, (8, 9)),
    _card("NVIDIA GeForce RTX 3060 12GB", 11.76, 360, 25.5, (8, 6)),
    _card("NVIDIA GeForce RTX 3060 Ti", 7.66, 448, 32.4, (8, 6)),
    _card("NVIDIA GeForce RTX 3070", 7.66, 448, 40.6, (8, 6)),
    _card("NVIDIA GeForce RTX 3070 Ti", 7.66, 608, 43.5, (8, 6)),
    _card("NVIDIA GeForce RTX 2060", 5.79, 336, 26, (7, 5), 200),
    _card("NVIDIA GeForce RTX 2070", 7.79, 448, 30, (7, 5), 200),
    _card("NVIDIA GeForce RTX 2080", 7.79, 448, 40, (7, 5), 200),
    _card("NVIDIA GeForce RTX 2080 Ti", 10.75, 616, 54, (7, 5), 200),
    _card("NVIDIA GeForce RTX 3080", 9.65, 760, 60, (8, 6)),
    _card("NVIDIA GeForce RTX 3080 Ti", 11.66, 912, 68, (8, 6)),
    _card("NVIDIA GeForce RTX 3090", 23.57, 936, 71, (8, 6)),
    _card("NVIDIA GeForce RTX 3090 Ti", 23.57, 1008, 80, (8, 6)),
    _card("NVIDIA GeForce RTX 4060", 7.63, 272, 30, (8, 9)),
    _card("NVIDIA GeForce RTX 4060 Ti 16GB", 15.57, 288, 44, (8, 9)),
    _card("NVIDIA GeForce RTX 4070", 11.60, 504, 58, (8, 9)),
    _card("NVIDIA GeForce RTX 4070 SUPER", 11.60, 504, 71, (8, 9)),
    _card("NVIDIA GeForce RTX 4070 Ti", 11.60, 504, 80, (8, 9)),
    _card("NVIDIA GeForce RTX 4070 Ti SUPER", 15.58, 672, 88, (8, 9)),
    _card("NVIDIA GeForce RTX 4080", 15.59, 717, 97, (8, 9)),
    _card("NVIDIA GeForce RTX 4080 SUPER", 15.59, 736, 104, (8, 9)),
    _card("NVIDIA GeForce RTX 4090", 23.52, 1008, 165, (8, 9)),
    _card("NVIDIA GeForce RTX 5060 Ti 16GB", 15.48, 448, 47, (12, 0)),
    _card("NVIDIA GeForce RTX 5070", 11.50, 672, 62, (12, 0)),
    _card("NVIDIA GeForce RTX 5070 Ti", 15.47, 896, 88, (12, 0)),
    _card("NVIDIA GeForce RTX 5080", 15.47, 960, 113, (12, 0)),
    _card("NVIDIA GeForce RTX 5090", 31.36, 1792, 210, (12, 0)),
    _card("NVIDIA A100 40GB", 39.39, 1555, 312, (8, 0)),
    _card("NVIDIA A100 80GB", 79.14, 2039, 312, (8, 0)),
    _card("NVIDIA H100 80GB", 79.11, 3350, 989, (9, 0), 520),
    _card("NVIDIA H100 NVL", 93.10, 3900, 835, (9, 0), 520),
    _card("NVIDIA GH200", 94.50, 4000, 989, (9, 0), 520),
    _card("NVIDIA H200", 139.72, 4800, 989, (9, 0), 520),
    _card("NVIDIA B200", 178.35, 8000, 2250, (10, 0), 600),
)


@lru_cache(maxsize=256)
def _words(name: str) -> frozenset[str]:
    """The words of a name that tell one card from another: with a number in them, or one of MARKS."""
    plain = re.sub(
        r"\b(rtx|gtx|titan|quadro)(?=\d)", r"\1 ", re.sub(r"(\d) ?(gb|gib)\b", r"\1gb", name.lower().replace("-", " "))
    )
    return frozenset(word for word in re.findall(r"[a-z0-9]+", plain) if word in MARKS or re.search(r"\d", word))


@lru_cache(maxsize=256)
def find(name: str, memory: int | None = None) -> Card | None:
    """The card that a name means ("RTX 4090"), the nearest in memory where several fit; None where none does."""
    words = _words(name)
    fitting = []
    for card in CARDS:
        core = {word for word in _words(card.name) if not word.endswith("gb")}
        if core <= words and core & MARKS == words & MARKS:
            fitting.append(card)
    if not fitting:
        return None
    most = max(len(_words(card.name) & words) for card in fitting)
    best = [card for card in fitting if len(_words(card.name) & words) == most]
    return min(best, key=lambda card: abs(card.memory - memory)) if memory else best[0]


def share(name: str) -> float:
    """The share of the card's speed that the device has: 1, or the sevenths of a MIG slice ("… MIG 2g.20gb")."""
    match = re.search(r"\bMIG (\d)g\b", name)
    return int(match[1]) / 7 if match else 1.0


def device(name: str | None = None, memory: str | int | None = None) -> Device:
    """A device that need not be here: by a card's name, by its memory ("24GB"), or both. Raises DeviceError."""
    size = size_of(memory) if memory is not None else None
    if name is None:
        return Device(
            kind="cuda", name=f"a card with {memory}", memory=size or 0, free=size or 0, capability=(8, 0), bf16=True
        )
    card = find(name)
    if card is None:
        known = {" ".join(sorted(_words(card.name))): card.name for card in CARDS}
        near = [
            known[match]
            for match in difflib.get_close_matches(
                " ".join(sorted(_words(name))) or name.lower(), known, n=3, cutoff=0.4
            )
        ]
        hint = f"Near ones: {', '.join(near) or 'none'}. Or give --memory 24GB."
        raise DeviceError(f"There is no known device {name!r}.", hint, "device")
    size = size or card.memory
    return Device(kind="cuda", name=card.name, memory=size, free=size, capability=card.capability, bf16=card.bf16)


def size_of(text: str | int) -> int:
    """Bytes from "24GB", "24 GiB", "24g", "16000MB", or a number (up to 4096: of GiB). Cards are labelled in GiB, so GB
    and GiB mean the same here. Raises DeviceError.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", str(text).lower())
    if not match or float(match[1]) <= 0:
        raise DeviceError(f"{text!r} is no amount of memory.", "Write --memory 24GB.", "memory")
    unit = match[2] or ("g" if float(match[1]) <= 4096 and not str(text).lower().rstrip().endswith("b") else " ")
    return int(float(match[1]) * 1024 ** " kmgt".index(unit))
