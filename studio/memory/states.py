"""What stands in memory all through a run: weights, trained parameters, gradients, optimizer states."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from studio.footprint import Footprint
from studio.memory.stack import Stack
from studio.model import ModelFacts

PIECE = 2**22  # numbers that worker/adamw.py steps at once, in float32
PAGED = 100_000  # numbers from which on a paged optimizer's state is in managed memory (bitsandbytes' get_state_buffer)
FOREACH = ("adamw_torch", "rmsprop", "adagrad")  # transformers' names of torch optimizers that take lists of tensors
BLOCK = 64  # weights that share a scale under NF4 (arXiv 2305.14314, section 3)


class States(NamedTuple):
    """Bytes."""

    weights: int
    trained: int
    gradients: int
    optimizer: int
    step: int  # what the optimizer needs for the moment of its step

    def standing(self) -> dict[str, int]:
        """What is there from load to end, by cause; gradients come and go."""
        return {"weights": self.weights, "trained": self.trained, "optimizer": self.optimizer}


def states(facts: ModelFacts, footprint: Footprint, shapes: dict[str, tuple[int, ...]], stack: Stack) -> States:
    """For a model, a method's footprint and trained shapes, and a loop."""
    each = footprint.each
    numbers = sum(prod(shape) for shape in shapes.values())
    return States(weights=weight_bytes(facts, footprint, stack), trained=numbers * each, gradients=numbers * each,
                  optimizer=optimizer_bytes(shapes, each, stack.optimizer), step=step_bytes(shapes, each, stack.optimizer))


def weight_bytes(facts: ModelFacts, footprint: Footprint, stack: Stack) -> int:
    """The frozen weights as loaded; a tied head once, as it is stored once."""
    linears = facts.linears() if footprint.quantized else {}
    rest = 4 if stack.kbit else stack.base
    total = 0
    for name, tensor in facts.tensors.items():
        if name in footprint.weights:
            continue
        module = name.removesuffix(".weight")
        if module in linears and module != name:
            total += quantized_bytes(tensor.shape, *footprint.quantized)
        else:
            total += tensor.size * (rest if footprint.quantized else stack.base)
    return total


def quantized_bytes(shape: tuple[int, ...], kind: str, double: bool) -> int:
    """A linear's weight under bitsandbytes: 8 bits with a float32 a row, or 4 bits with scales."""
    return prod(shape) + 4 * shape[0] if kind == "int8" else nf4_bytes(prod(shape), double)


def nf4_bytes(size: int, double: bool) -> int:
    """Half a byte a weight and a float32 scale per 64; doubled: 8-bit scales, a float32 per 256 of them, a code table of 256 floats."""
    scales = -(-size // BLOCK)
    table = 16 * 4
    if not double:
        return -(-size // 2) + scales * 4 + table
    return -(-size // 2) + scales + -(-scales // 256) * 4 + 256 * 4 + 4 + table


def optimizer_bytes(shapes: dict[str, tuple[int, ...]], each: int, name: str) -> int:
    """Bytes of an optimizer's states. each: bytes of a trained number, whose type torch's optimizers give their states."""
    if "adafactor" in name:  # a row and a column of second moments (Shazeer and Stern 2018, arXiv 1804.04235), float32
        return sum(4 * (sum(shape[-2:]) * prod(shape[:-2]) if len(shape) > 1 else prod(shape)) for shape in shapes.values())
    if "8bit" in name:  # two states of a byte with a float32 per 256 (Dettmers et al. 2021, arXiv 2110.02861); below 4096 elements 32-bit
        halves = 1 if "lion" in name or "rmsprop" in name else 2
        return sum(halves * (prod(shape) + -(-prod(shape) // 256) * 4 if prod(shape) >= 4096 else 4 * prod(shape)) for shape in shapes.values())
    numbers = sum(prod(shape) for shape in shapes.values())
    if name.startswith("sgd"):
        return 0
    states = 1 if any(word in name for word in ("lion", "rmsprop", "adagrad")) else 2
    wide = 4 if "paged" in name or "32bit" in name else each
    return states * numbers * wide


def step_bytes(shapes: dict[str, tuple[int, ...]], each: int, name: str) -> int:
    """Temporaries of a step: a foreach optimizer makes one list as long as all trained numbers; fused ones none."""
    sizes = [prod(shape) for shape in shapes.values()]
    if "foreach" in name:
        return sum(sizes) * each
    if "adafactor" in name:
        return 2 * 4 * max(sizes, default=0)
    return 0 if "fused" in name or "8bit" in name or "paged" in name else 2 * each * max(sizes, default=0)
    if "rounding" in name:
        return 6 * 4 * min(PIECE, max(sizes, default=0))
