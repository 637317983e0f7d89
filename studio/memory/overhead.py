"""What lies around the tensors: the CUDA context and the allocator's gaps, or Python's own memory on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from studio import cards
from studio.device import Device
from studio.memory.anatomy import Anatomy
from studio.memory.stack import Stack
from studio.memory.step import Step

MIB = 2**20
CUBLAS = 2 * 8_519_680  # two workspaces of cuBLAS as PyTorch asks for them; 17,039,360 bytes were seen on a T4
CUBLAS_HOPPER = 2 * 32 * MIB
CONTEXT = 450 * MIB  # of a card that is not in cards.py
GAP = (0.03, 0.08, 0.14)  # reserved beyond allocated, as share of what is not standing: 0.06 to 0.14 were seen with a fused loss on A100s
PROCESS = 640 * MIB  # Python with torch, transformers and peft loaded, before the model


HOLES = 6.4  # a CPU's heap keeps holes of this many feed-forward activations a token and layer: 4.8 to 7.6 were measured on the starter
HOLES_LAYERS = 3  # with checkpointing only so many layers' worth, as each layer leaves little behind


class Overhead(NamedTuple):
    """Bytes: low, expected, high of all that is no tensor; `workspace` of it belongs to kernels."""

    low: int
    expected: int
    high: int
    workspace: int


def overhead(device: Device, step: Step, stack: Stack, anatomy: Anatomy) -> Overhead:
    """For a device and a walked step."""
    return cpu(step, stack, anatomy) if device.kind == "cpu" else card(device, step)


def card(device: Device, step: Step) -> Overhead:
    """Context, cuBLAS' workspaces, and what the caching allocator reserves beyond what is allocated."""
    known = cards.find(device.name, device.memory)
    workspace = CUBLAS_HOPPER if (device.capability or (8, 0)) >= (9, 0) else CUBLAS
    around = (known.context if known else CONTEXT) + workspace
    moving = max(0, step.peak - step.by_moment["load"])
    low, expected, high = (around + int(share * moving) for share in GAP)
    return Overhead(low, expected, high, workspace)


def cpu(step: Step, stack: Stack, anatomy: Anatomy) -> Overhead:
    """The interpreter with its libraries, and the heap's holes, in which optimizer states and gradients find room later."""
    width = max(layer.width for layer in anatomy.layers)
    layers = min(len(anatomy.layers), HOLES_LAYERS) if stack.checkpointing else len(anatomy.layers)
    holes = int(HOLES * stack.tokens * width * stack.stream * layers)
    later = step.causes.get("optimizer", 0) + (step.causes.get("gradients", 0) if stack.accumulates else 0)
    low, expected, high = (PROCESS + max(0, int(holes * share) - later) for share in (0.7, 1.0, 1.3))
    return Overhead(low, expected, high, 0)
