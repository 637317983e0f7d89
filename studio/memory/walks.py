"""Which layers of a model are walked on the tape, how often each counts, and how: plainly or checkpointed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from studio.footprint import Footprint
from studio.memory.architecture import Architecture, Layer
from studio.memory.autograd_tape import FakeTensor, Node, Storage, Tape
from studio.memory.layer import decoder_layer
from studio.memory.operations import Operations
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


def checkpointed(ops: Operations, layer: Layer, stream: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """Forward keeps the layer's input alone; backward walks the layer again (Chen et al. 2016, arXiv 1604.06174), as
    torch.utils.checkpoint does it: only when the first thing that was not kept is asked for, and no further than to the
    last such thing.
    """
    tape, source = ops.tape, stream.grad_fn

    def again() -> tuple[FakeTensor, list[Node]]:
        outer, tape.nodes = tape.nodes, []
        inner = tape.node([], []) if source is not None else None
        output = decoder_layer(ops, layer, FakeTensor(stream.storage, stream.numel, stream.itemsize, inner), mask)
        nodes, tape.nodes = tape.nodes, outer
        return output, nodes

    tape.saving, tape.reads = False, 0
    result, first = again()
    tape.saving, end, count = True, result.grad_fn, tape.reads

    def recompute(tape: Tape, node: Node, grad: Storage) -> None:
        if end is not None:
            end.grad = tape.retain(grad)
        tape.backward(first, until_read=True)
        tape.recompute_left = count
        output, nodes = again()
        tape.delete(output)
        tape.recompute_left, tape.stopped = None, False
        nodes = nodes[: len(first)]
        for new, old in zip(nodes, first, strict=True):
            new.grad = old.grad
        gradient = _run(tape, nodes, nodes[0] if source is not None else None)
        if gradient is not None and source is not None:
            tape.accumulate_grad(source, gradient)

    result.grad_fn = tape.node([(source, 0)] if source is not None else [], [stream.storage], recompute=recompute)
    return result


def _run(tape: Tape, nodes: list[Node], inner: Node | None) -> Storage | None:
    """Run the nodes of one layer backwards; returns the gradient that arrived at its input."""
    if inner is not None:
        nodes.remove(inner)
    tape.backward(nodes)
    if inner is None:
        return None
    gradient, inner.grad = inner.grad, None
    return gradient
