"""Which layers of a model are walked on the tape, how often each counts, and how: plainly or checkpointed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from studio.footprint import Footprint
from studio.memory.architecture import Layer
from studio.memory.autograd_tape import FakeTensor
from studio.memory.checkpointed import checkpointed
from studio.memory.layer import decoder_layer
from studio.memory.training_loop import TrainingLoop
from studio.model import ByIdentity


def walks(
    layers: tuple[Layer, ...], footprint: Footprint, loop: TrainingLoop
) -> list[tuple[Layer, int, Callable[..., FakeTensor]]]:
    """(layer, number of equal layers that it stands for, how it is walked); the first and the last stand alone."""
    low_rank, bottleneck, scaled = footprint.low_rank, footprint.bottleneck, footprint.scaled
    added = ByIdentity((low_rank,)), ByIdentity((bottleneck,)), ByIdentity((scaled,))
    count = len(layers) - loop.kept_layers if loop.checkpointing else 0
    return _planned(ByIdentity((layers,)), *added, footprint.weights, count)


@lru_cache(maxsize=64)
def _planned(
    layers: ByIdentity,
    low_rank: ByIdentity,
    bottleneck: ByIdentity,
    scaled: ByIdentity,
    weights: frozenset[str],
    checkpointed_layers: int,
) -> list[tuple[Layer, int, Callable[..., FakeTensor]]]:
    plan: list[tuple[Layer, int, Callable[..., FakeTensor]]] = []
    last_shape: tuple | None = None
    for index, layer in enumerate(layers[0]):
        walk = checkpointed if index < checkpointed_layers else decoder_layer
        shape = (
            index == 0,
            index == len(layers[0]) - 1,
            walk,
            layer.norms,
            layer.qk_norms,
            layer.other_numel,
            tuple(
                (
                    linear.role,
                    linear.in_features,
                    linear.out_features,
                    low_rank[0].get(linear.name),
                    bottleneck[0].get(linear.name),
                    scaled[0].get(linear.name),
                    f"{linear.name}.weight" in weights,
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
