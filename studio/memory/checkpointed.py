"""A checkpointed layer on the tape: forward keeps its input alone, backward walks it again."""

from __future__ import annotations

from studio.memory.architecture import Layer
from studio.memory.autograd_tape import Buffer, Node, Tape, Value
from studio.memory.layer import decoder_layer
from studio.memory.operations import Walk


def checkpointed(walk: Walk, layer: Layer, stream: Value, mask: Value | None) -> Value:
    """Forward keeps the layer's input alone; backward walks the layer again (Chen et al. 2016, arXiv 1604.06174), as torch.utils.checkpoint does
    it: only when the first thing that was not kept is asked for, and no further than to the last such thing.
    """
    tape, source = walk.tape, stream.node

    def again() -> tuple[Value, list[Node]]:
        outer, tape.nodes = tape.nodes, []
        inner = tape.node([], []) if source is not None else None
        made = decoder_layer(walk, layer, Value(stream.buffer, stream.size, stream.each, inner), mask)
        nodes, tape.nodes = tape.nodes, outer
        return made, nodes

    tape.saving, tape.reads = False, 0
    result, first = again()
    tape.saving, end, count = True, result.node, tape.reads

    def replay(tape: Tape, node: Node, given: Buffer) -> None:
        if end is not None:
            end.gradient = tape.hold(given)
        tape.backward(first, until_read=True)
        tape.left = count
        made, nodes = again()
        tape.drop(made)
        tape.left, tape.mute = None, False
        nodes = nodes[: len(first)]
        for new, old in zip(nodes, first, strict=True):
            new.gradient = old.gradient
        gradient = _run(tape, nodes, nodes[0] if source is not None else None)
        if gradient is not None and source is not None:
            tape.send(source, gradient)

    result.node = tape.node([(source, 0)] if source is not None else [], [stream.buffer], replay=replay)
    return result


def _run(tape: Tape, nodes: list[Node], inner: Node | None) -> Buffer | None:
    """Run the nodes of one layer backwards; returns the gradient that arrived at its input."""
    if inner is not None:
        nodes.remove(inner)
    tape.backward(nodes)
    if inner is None:
        return None
    gradient, inner.gradient = inner.gradient, None
    return gradient
