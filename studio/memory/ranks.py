"""What one of several devices holds that share a run: a copy of the model (DDP), or a part of it (FSDP2)."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from studio.config import RunConfig
from studio.device import Device
from studio.footprint import Footprint
from studio.memory.architecture import Architecture
from studio.memory.states import States
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts

SUMMED = 4  # bytes in which worker/sharding.py sums gradients; weights are gathered in the computing format


class Gathered(NamedTuple):
    """Bytes of a split model gathered for a while: while_running beside the shards, at_end to be saved."""

    while_running: int = 0
    at_end: int = 0


NOTHING = Gathered()


def split(config: RunConfig, device: Device, states: States, footprint: Footprint) -> bool:
    """Whether FSDP splits the model. auto: where weights, gradients and AdamW's states fill two thirds of a device."""
    if config.training.device_count == 1 or config.data.new_tokens or not config.stage.is_supervised:
        return False
    if config.training.sharding != "auto":
        return config.training.sharding == "fsdp"
    numbers = sum(map(prod, footprint.shapes.values()))
    return device.traits.torch == "cuda" and states.weights + states.trained + 12 * numbers > device.memory * 2 / 3


def share(states: States, loop: TrainingLoop) -> States:
    """A rank's part. The scales of weights in 4 or 8 bits stay whole on each."""
    if not loop.fsdp:
        return states
    count = loop.world_size
    return states._replace(
        weights=states.scales + -(-(states.weights - states.scales) // count),
        trained=-(-states.trained // count),
        gradients=-(-states.gradients // count),
        optimizer=-(-states.optimizer // count),
        paged=-(-states.paged // count),
        step=-(-states.step // count),
    )


def buckets(states: States, loop: TrainingLoop) -> int:
    """DDP's buckets, which together are as large as all gradients and stay (gradient_as_bucket_view is off)."""
    return states.gradients if loop.world_size > 1 and not loop.fsdp else 0


def gathered(facts: ModelFacts, architecture: Architecture, footprint: Footprint, loop: TrainingLoop) -> Gathered:
    """FSDP2 (worker/sharding.py): each layer is a unit, what lies around them another.

    Gathered are the outer unit, the layer that computes, and the next one; in backward also a layer's gradients, their
    copy that is being summed, and that of the layer before (torch's FSDPParamGroup).
    """
    if not loop.fsdp:
        return NOTHING
    itemsize = loop.compute_itemsize
    packed = facts.linears() if footprint.quantized else {}
    packed_itemsize = 1 if footprint.quantized and footprint.quantized[0] == "int8" else 0.5
    nbytes = {
        name: tensor.size * (packed_itemsize if name.removesuffix(".weight") in packed else itemsize)
        for name, tensor in facts.tensors.items()
    }
    prefixes = tuple(layer.prefix for layer in architecture.layers)
    layers, trained = [], []
    for prefix in prefixes:
        added = _added(footprint, prefix, facts)
        weights = [name for name in footprint.weights if name in nbytes and name.startswith(prefix)]
        layers.append(sum(size for name, size in nbytes.items() if name.startswith(prefix)) + itemsize * added)
        trained.append(sum(facts.tensors[name].size for name in weights) + added)
    outside = sum(size for name, size in nbytes.items() if not name.startswith(prefixes))
    largest = max(tensor.size for tensor in facts.tensors.values())
    largest *= footprint.trained_itemsize if footprint.weights else loop.weight_itemsize
    return Gathered(int(outside + 2 * max(layers) + max(trained) * (itemsize + 2 * SUMMED)), largest)


def _added(footprint: Footprint, prefix: str, facts: ModelFacts) -> int:
    """Trained numbers that a method adds to a layer."""
    linears = {name: widths for name, widths in facts.linears().items() if name.startswith(prefix)}
    return (
        sum(rank * sum(linears[name]) for name, rank in footprint.low_rank.items() if name in linears)
        + sum(2 * width * linears[name][1] for name, width in footprint.bottleneck.items() if name in linears)
        + sum(width for name, width in footprint.scaled.items() if name.startswith(prefix))
    )
