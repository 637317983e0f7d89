"""Which layers of a model are walked on the tape, how often each counts, and how: plainly or checkpointed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from studio.footprint import Footprint
from studio.memory.architecture import Architecture, Layer
from studio.memory.autograd_tape import FakeTensor
from studio.memory.checkpointed import checkpointed
from studio.memory.layer import decoder_layer
from studio.memory.training_loop import TrainingLoop

Walk = tuple[Layer, int, Callable[..., FakeTensor]]


def walks(architecture: Architecture, footprint: Footprint, loop: TrainingLoop) -> list[Walk]:
    """(layer, number of equal layers that it stands for, how it is walked); the first and the last stand alone."""
    layers = len(architecture.layers)
    return _planned(architecture, footprint, layers - loop.kept_layers if loop.checkpointing else 0)


@lru_cache(maxsize=64)
def _planned(architecture: Architecture, footprint: Footprint, checkpointed_layers: int) -> list[Walk]:
    layers = architecture.layers
    plan: list[Walk] = []
    last_shape: tuple | None = None
    for index, layer in enumerate(layers):
        walk = checkpointed if index < checkpointed_layers else decoder_layer
        shape = (
            index == 0,
            index == len(layers) - 1,
            walk,
            layer.norms,
            layer.qk_norms,
            layer.other_numel,
            tuple(
                (
                    linear.role,
                    linear.in_features,
                    linear.out_features,
                    footprint.low_rank.get(linear.name),
                    footprint.bottleneck.get(linear.name),
                    footprint.scaled.get(linear.name),
                    f"{linear.name}.weight" in footprint.weights,
                )
                for linear in layer.linears
            ),
        )
        if shape == last_shape:
            plan[-1] = (plan[-1][0], plan[-1][1] + 1, walk)
        else:
            plan.append((layer, 1, walk))
        last_shape = shape
    return plan
