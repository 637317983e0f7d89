"""Memory beside the tensors: the CUDA context and the allocator's gaps, or Python's own memory on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from studio import cards
from studio.device import Device
from studio.footprint import Footprint
from studio.memory.architecture import Architecture
from studio.memory.step import Step
from studio.memory.training_loop import TrainingLoop

MIB = 2**20
CUBLAS = 2 * 8_519_680  # two workspaces of cuBLAS as PyTorch asks for them; 17,039,360 bytes were seen on a T4
CUBLAS_HOPPER = 2 * 32 * MIB
CONTEXT = 450 * MIB  # of a card that is not in cards.py
# Bytes reserved beyond the allocated ones, as share of what is not standing: low, expected, high. From the published
# measurements that give both.
STACKED = (0.02, 0.06, 0.14)  # without checkpointing, activations pile up and go in turn (L40S)
CHUNKED = (0.06, 0.12, 0.17)  # checkpointed, logits in chunks: 0.11 to 0.15 on A100s
# checkpointed, with whole logits or all scores: 0.02 to 0.6 on A100s, 0.08 to 0.47 on a T4
TORN_UP = (0.05, 0.25, 0.50)
PROCESS = 532 * MIB  # Python with torch, transformers and peft loaded, before the model

# A CPU's heap keeps holes, counted in feed-forward activations a token and layer: low, expected, high, as many steps
# over rows of unlike lengths fragment it further. Measured on the starter (tests/bench/results/memory_cpu.md), under
# the malloc settings of runs/launch.py, in float32 and where products are in 16 bits:
HOLES = (0.45, 0.9, 3.6)  # 0.6 to 1.1
HOLES_NARROW = (0.4, 0.8, 8.3)  # 0 to 1.8 over rows of one length, 8.1 in a long full run
ONEDNN = 68 * MIB  # its kernels for 16 bits
TRIMMED = 550 * MIB  # behind a packed base
PACKED = 0.1  # bytes a packed number


class Overhead(NamedTuple):
    """Bytes: low, expected, high of all that torch's allocator does not count as tensors.

    workspace: of kernels. paged: of the optimizer, in managed memory. context: what the allocator does not reserve
    either, beside paged.
    """

    low: int
    expected: int
    high: int
    workspace: int
    paged: int = 0
    context: int = 0
    fixed: int = 0  # of expected, what does not come and go with tensors

    def at(self, size: int, step: Step) -> int:
        """Bytes as the device shows them where `size` bytes of tensors are alive."""
        share = (size - step.standing) / max(1, step.peak - step.standing)
        return size + self.fixed + int((self.expected - self.fixed) * min(1.0, max(0.0, share)))


def overhead(
    device: Device, step: Step, loop: TrainingLoop, architecture: Architecture, footprint: Footprint, paged: int = 0
) -> Overhead:
    """The overhead of a walked step on a device. paged: bytes of optimizer states in managed memory."""
    return cpu(loop, architecture, footprint) if device.kind == "cpu" else card(device, step, loop, paged)


def gap(loop: TrainingLoop) -> tuple[float, float, float]:
    """Share of the moving tensors that the caching allocator reserves beyond them: low, expected, high."""
    if not loop.checkpointing:
        return STACKED
    return TORN_UP if loop.head == "full" or loop.attention == "eager" else CHUNKED


def card(device: Device, step: Step, loop: TrainingLoop, paged: int) -> Overhead:
    """Context, cuBLAS' workspaces, paged states, and what the caching allocator reserves beyond what is allocated."""
    known = cards.find(device.name, device.memory)
    workspace = CUBLAS_HOPPER if (device.capability or (8, 0)) >= (9, 0) else CUBLAS
    context = known.context if known else CONTEXT
    around = context + paged + workspace
    moving = max(0, step.peak - step.standing)
    low, expected, high = (around + int(share * moving) for share in gap(loop))
    return Overhead(low, expected, high, workspace, paged, context, around)


def cpu(loop: TrainingLoop, architecture: Architecture, footprint: Footprint) -> Overhead:
    """The interpreter with its libraries, and the heap's holes.

    Behind a base that is packed as it is loaded the heap is trimmed (base/quantization.py): oneDNN's kernels fit into
    what packing leaves, and the file is closed.
    """
    layers = architecture.layers
    tokens = loop.tokens + loop.batch * footprint.virtual
    widest = max(layer.intermediate_size for layer in layers)
    narrow = loop.compute_itemsize == 2
    fixed = PROCESS + (ONEDNN if narrow else 0)
    activations = tokens * widest * loop.hidden_itemsize * len(layers)
    if footprint.quantized:
        numel = sum(linear.in_features * linear.out_features for layer in layers for linear in layer.linears)
        fixed = TRIMMED + int(PACKED * numel)
    low, expected, high = (fixed + int(activations * holes) for holes in (HOLES_NARROW if narrow else HOLES))
    return Overhead(low, expected, high, 0, fixed=fixed)
