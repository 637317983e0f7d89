"""Ranks: what one of several devices holds, where a run is shared between them: a copy each (DDP), or the model split
over them (FSDP2).
"""

from __future__ import annotations

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
    """Bytes of a split model that are whole for a while. while_running: beside the shards from forward to backward;
    at_end: one weight after the other, to be saved.
    """

    while_running: int = 0
    at_end: int = 0


NOTHING = Gathered()


def processes(config: RunConfig) -> int:
    """Devices that share the run; auto: one."""
    return config.training.devices if isinstance(config.training.devices, int) else 1


def split(config: RunConfig, device: Device, states: States, numbers: int) -> bool:
    """Whether the model is split over the devices. auto: as worker/sharding.py, where a copy with its states would fill
    two thirds of one.
    """
    if processes(config) == 1:
        return False
    if config.data.new_tokens:
        return False
    if config.training.sharding != "auto":
        return config.training.sharding == "fsdp"
    return device.traits.torch == "cuda" and states.weights + states.trained + 12 * numbers > device.memory * 2 / 3


def share(states: States, loop: TrainingLoop) -> States:
    """A rank's part. Of weights that are packed into 4 or 8 bits the numbers are split, their scales stay whole on
    each.
    """
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
    """DDP sums gradients in buckets, which together are as large as all of them and stay (torch's reducer;
    gradient_as_bucket_view is off).
    """
    return states.gradients if loop.world_size > 1 and not loop.fsdp else 0


def gathered(facts: ModelFacts, architecture: Architecture, footprint: Footprint, loop: TrainingLoop) -> Gathered:
    """FSDP2 (worker/sharding.py): each layer is a unit, what lies around them another, whole from forward to backward.

    In use are the outer unit, the layer that computes, and the next one on its way; in backward a layer's gradients,
    their copy that is being summed, and that of the layer before (torch's FSDPParamGroup).
    """
    if not loop.fsdp:
        return NOTHING
    itemsize = loop.compute_itemsize
    packed, narrow = (
        (facts.linears(), 0.5 if footprint.quantized[0] != "int8" else 1) if footprint.quantized else ({}, 0)
    )
    whole = {
        name: tensor.size * (narrow if name.removesuffix(".weight") in packed else itemsize)
        for name, tensor in facts.tensors.items()
    }
    prefixes = tuple(layer.prefix for layer in architecture.layers)
    beside = [_beside(footprint, prefix, facts) for prefix in prefixes]
    layers = [
        sum(size for name, size in whole.items() if name.startswith(prefix)) + itemsize * more
        for prefix, more in zip(prefixes, beside, strict=True)
    ]
    moving = [
        sum(facts.tensors[name].size for name in footprint.weights if name in whole and name.startswith(prefix)) + more
        for prefix, more in zip(prefixes, beside, strict=True)
    ]
    outside = sum(size for name, size in whole.items() if not name.startswith(prefixes))
    largest = max(tensor.size for tensor in facts.tensors.values()) * (
        footprint.trained_itemsize if footprint.weights else loop.weight_itemsize
    )
    return Gathered(int(outside + 2 * max(layers) + max(moving) * (itemsize + 2 * SUMMED)), largest)


def _beside(footprint: Footprint, prefix: str, facts: ModelFacts) -> int:
    """Trained numbers that a method puts beside a layer's linears."""
    linears, found = facts.linears(), 0
    for name, rank in footprint.low_rank.items():
        found += rank * sum(linears[name]) if name.startswith(prefix) and name in linears else 0
    for name, width in footprint.bottleneck.items():
        found += 2 * width * linears[name][1] if name.startswith(prefix) and name in linears else 0
    return found + sum(size for name, size in footprint.scaled.items() if name.startswith(prefix))
