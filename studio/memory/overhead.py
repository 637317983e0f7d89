"""What lies around the tensors: the CUDA context and the allocator's gaps, or Python's own memory on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from studio import cards
from studio.device import Device
from studio.memory.step import Step

MIB = 2**20
CUBLAS = 2 * 8_519_680  # two workspaces of cuBLAS as PyTorch asks for them; 17,039,360 bytes were seen on a T4
CUBLAS_HOPPER = 2 * 32 * MIB
CONTEXT = 450 * MIB  # of a card that is not in cards.py
GAP = (0.02, 0.06, 0.12)  # reserved beyond allocated, as share of what is not standing: 0.06 to 0.14 were seen with a fused loss on A100s
PROCESS = 640 * MIB  # Python with torch, transformers and peft loaded, before the model


class Overhead(NamedTuple):
    """Bytes: low, expected, high of all that is no tensor; `workspace` of it belongs to kernels."""

    low: int
    expected: int
    high: int
    workspace: int


def overhead(device: Device, step: Step) -> Overhead:
    """For a device and a walked step."""
    standing = step.by_moment["load"]
    moving = max(0, step.peak - standing)
    if device.kind == "cuda":
        card = cards.find(device.name, device.memory)
        context = card.context * 1 if card else CONTEXT
        workspace = CUBLAS_HOPPER if (device.capability or (8, 0)) >= (9, 0) else CUBLAS
        low, expected, high = (context + workspace + int(share * moving) for share in GAP)
        return Overhead(low, expected, high, workspace)
    low, expected, high = (PROCESS + int(share * moving) for share in (0.0, 0.05, 0.15))
    return Overhead(low, expected, high, 0)
