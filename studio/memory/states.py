"""What stands in memory all through a run: weights, trained parameters, gradients, optimizer states."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import NamedTuple

from studio.footprint import Footprint
from studio.kernels import ADAMW_CHUNK_SIZE
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts

# elements from which on a paged optimizer's state is in managed memory (bitsandbytes' get_state_buffer)
PAGED = 100_000
FOREACH = ("adamw_torch", "rmsprop", "adagrad")  # transformers' names of torch optimizers that take lists of tensors
BLOCK = 64  # weights that share a scale under NF4 (arXiv 2305.14314, section 3)


class States(NamedTuple):
    """Bytes."""

    weights: int
    trained: int
    gradients: int
    optimizer: int
    step: int  # what the optimizer needs for the moment of its step
    paged: int = 0  # of its states in managed memory, which torch's allocator does not count and CUDA may move to RAM
    scales: int = 0  # of the weights held in 4 or 8 bits, what is beside their numbers
    loading: int = 0  # what loading needs beside the weights: the linear that is being packed, in 16 bits

    def standing(self) -> dict[str, int]:
        """What is there from load to end, by cause; gradients come and go."""
        return {"weights": self.weights, "trained": self.trained, "optimizer": self.optimizer}


def states(facts: ModelFacts, footprint: Footprint, loop: TrainingLoop) -> States:
    """The states of a model under a method's footprint and a loop."""
    packed, scales, rest, largest = _weights(facts, footprint, 4 if loop.kbit else loop.weight_itemsize)
    trained = _trained(footprint, loop.optimizer, loop.device)
    return States(packed + rest, *trained, scales=scales, loading=2 * largest)


@lru_cache(maxsize=64)  # the same while batch and length are moved
def _trained(footprint: Footprint, optimizer: str, device: str) -> tuple[int, int, int, int, int]:
    """The fields of States from `trained` to `paged`."""
    shapes, itemsize = footprint.shapes, footprint.trained_itemsize
    numbers = sum(prod(shape) for shape in shapes.values())
    paged = paged_bytes(shapes, optimizer) if device == "cuda" else 0
    held = optimizer_bytes(shapes, itemsize, optimizer) - paged
    return numbers * itemsize, numbers * itemsize, held, step_bytes(shapes, itemsize, optimizer, device), paged


@lru_cache(maxsize=64)
def _weights(facts: ModelFacts, footprint: Footprint, itemsize: int) -> tuple[int, int, int, int]:
    """(bytes of frozen weights in 4 or 8 bits, bytes of their scales, bytes of the other frozen weights, elements of
    the largest packed weight). A tied head counts once. itemsize: bytes of an element that is not packed.
    """
    trained, quantized = footprint.weights - footprint.copies, footprint.quantized
    linears = facts.linears() if quantized else {}
    packed = scales = rest = largest = 0
    for name, tensor in facts.tensors.items():
        if name in trained:
            continue
        module = name.removesuffix(".weight")
        if quantized and module in linears and module != name:
            nbytes = quantized_bytes(tensor.shape, *quantized)
            packed += nbytes
            scales += nbytes - (tensor.size if quantized[0] == "int8" else -(-tensor.size // 2))
            largest = max(largest, tensor.size)
        else:
            rest += tensor.size * itemsize
    return packed, scales, rest, largest


def quantized_bytes(shape: tuple[int, ...], kind: str, double: bool) -> int:
    """A linear's weight under bitsandbytes: 8 bits with a float32 a row, or 4 bits with scales."""
    return prod(shape) + 4 * shape[0] if kind == "int8" else nf4_bytes(prod(shape), double)


def nf4_bytes(size: int, double: bool) -> int:
    """Half a byte a weight, a float32 scale per 64; doubled: 8-bit scales, a float32 per 256, a table of 256 floats."""
    scales = -(-size // BLOCK)
    table = 16 * 4
    if not double:
        return -(-size // 2) + scales * 4 + table
    return -(-size // 2) + scales + -(-scales // 256) * 4 + 256 * 4 + 4 + table


def optimizer_bytes(shapes: Mapping[str, tuple[int, ...]], itemsize: int, name: str) -> int:
    """Bytes of an optimizer's states. itemsize: of a trained number, and of torch's optimizers' states for it."""
    if "adafactor" in name:  # a row and a column of second moments (Shazeer and Stern 2018, arXiv 1804.04235), float32
        return sum(
            4 * (sum(shape[-2:]) * prod(shape[:-2]) if len(shape) > 1 else prod(shape)) for shape in shapes.values()
        )
    # two states of a byte with a float32 per 256 (Dettmers et al. 2021, arXiv 2110.02861); below 4096 elements 32-bit
    if "8bit" in name:
        states = 1 if "lion" in name or "rmsprop" in name else 2
        return sum(
            states * (prod(shape) + -(-prod(shape) // 256) * 4 if prod(shape) >= 4096 else 4 * prod(shape))
            for shape in shapes.values()
        )
    numbers = sum(prod(shape) for shape in shapes.values())
    if name.startswith("sgd"):
        return 0
    states = 1 if any(word in name for word in ("lion", "rmsprop", "adagrad")) else 2
    wide = 4 if "paged" in name or "32bit" in name else itemsize
    return states * numbers * wide


def paged_bytes(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    """Bytes of the states that bitsandbytes' paged optimizers hold in managed memory, a part of optimizer_bytes."""
    if "paged" not in name:
        return 0
    numel = sum(prod(shape) for shape in shapes.values() if prod(shape) >= PAGED)
    return (1 if "lion" in name else 2) * numel * (1 if "8bit" in name else 4)


def step_bytes(shapes: Mapping[str, tuple[int, ...]], itemsize: int, name: str, device: str) -> int:
    """Temporaries of a step: of a foreach optimizer (torch's choice on CUDA) as many as all trained numbers."""
    sizes = [prod(shape) for shape in shapes.values()]
    if "foreach" in name or device == "cuda" and name in FOREACH:
        return sum(sizes) * itemsize
    if "rounding" in name:
        return 6 * 4 * min(ADAMW_CHUNK_SIZE, max(sizes, default=0))
    if "adafactor" in name:
        return 2 * 4 * max(sizes, default=0)
    if any(word in name for word in ("fused", "8bit", "paged", "lion_32bit", "sgd")):
        return 0
    return 2 * itemsize * max(sizes, default=0)
