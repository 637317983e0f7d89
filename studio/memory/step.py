"""One training step on the tape: embed, layers, head and loss, the way back, the optimizer. Gives the peak of every moment."""

from __future__ import annotations

from typing import NamedTuple

from studio.footprint import Footprint
from studio.memory.anatomy import Anatomy, Layer
from studio.memory.head import head_loss
from studio.memory.layer import decoder_layer
from studio.memory.stack import Stack
from studio.memory.states import States
from studio.memory.tape import Buffer, Node, Tape, Value
from studio.memory.walk import Walk

MOMENTS = ("load", "forward", "loss", "backward", "optimizer", "evaluation")


class Step(NamedTuple):
    """Bytes. by_moment: the highest of each moment; causes: what was alive at the highest of all; by_phase: the same for each."""

    peak: int
    moment: str
    by_moment: dict[str, int]
    causes: dict[str, int]
    by_phase: dict[str, dict[str, int]]
    kept: int  # activations a layer keeps from forward to backward


def step(anatomy: Anatomy, stack: Stack, footprint: Footprint, states: States) -> Step:
    """Walk one micro-batch and one optimizer step, the optimizer's states being there from the step before."""
    if footprint.virtual:
        stack = stack._replace(length=stack.length + footprint.virtual)
    tape = Tape(512 if stack.device == "cuda" else 64, stack.accumulates)
    walk = Walk(tape, stack, anatomy, footprint)
    for cause, size in states.standing().items():
        tape.add(size, cause)
    if stack.accumulates:
        tape.add(states.gradients, "gradients")
    tape.moment = "forward"
    kept = _forward_backward(walk)
    tape.drop(walk.held)
    tape.moment = "optimizer"
    missing = states.gradients - tape.causes["gradients"]
    tape.add(missing, "gradients")
    tape.scratch(states.step, "workspace")
    moment = max(tape.peaks, key=lambda name: tape.peaks[name])
    return Step(tape.peaks[moment], moment, dict(tape.peaks), tape.at_peak[moment], dict(tape.at_peak), kept)


def _forward_backward(walk: Walk) -> int:
    """One micro-batch there and back. Returns what a layer keeps."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    tape.add(stack.tokens * 8 * 3, "activations")  # ids, labels, attention mask: int64
    tape.add(stack.length * anatomy.head_dim * stack.stream * 2, "activations")  # cos and sin
    mask = Value(tape.take(stack.batch * stack.length * (stack.length + walk.footprint.prefix), "activations"),
                 stack.batch * stack.length * (stack.length + walk.footprint.prefix), 1, None) if stack.mask and stack.attention != "flash" else None
    stream = _embedded(walk)
    chain: list = [tape.nodes]
    tape.nodes = []
    kept = 0
    for layer, count in _plan(anatomy.layers, walk.footprint):
        stream, used = _block(walk, layer, count, stream, mask, chain)
        kept = max(kept, used)
    final = walk.norm(stream, anatomy.hidden, walk.final_moves)
    tape.drop(stream)
    tape.moment = "loss"
    loss = head_loss(walk, final)
    tape.drop(final)
    chain.append(tape.nodes)
    tape.nodes = []
    for buffer in walk.copies:
        tape.free(buffer)
    seed = tape.take(4, "activations")
    if loss.node is not None:
        loss.node.gradient = seed
    _back(walk, chain)
    return kept


def _plan(layers: tuple[Layer, ...], footprint: Footprint) -> list[tuple[Layer, int]]:
    """Stretches of equal layers. The first and the last layer of all are walked by themselves, the others stand for each other."""
    plan: list[tuple[Layer, int]] = []
    marks: list[tuple] = []
    for place, layer in enumerate(layers):
        mark = (place == 0, place == len(layers) - 1, layer.norms, layer.inner, layer.loose, tuple(
            (linear.part, linear.inputs, linear.outputs, footprint.low_rank.get(linear.name), footprint.bottleneck.get(linear.name),
             footprint.scaled.get(linear.name), f"{linear.name}.weight" in footprint.weights) for linear in layer.linears))
        if marks and marks[-1] == mark:
            plan[-1] = (plan[-1][0], plan[-1][1] + 1)
        else:
            plan.append((layer, 1))
            marks.append(mark)
    return plan


def _embedded(walk: Walk) -> Value:
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    size = stack.tokens * anatomy.hidden
    weights = anatomy.embedding * walk.footprint.each if walk.table_moves else 0
    stream = tape.op(size, stack.stream, [], weights=weights)
    learns_input = walk.footprint.virtual or stack.input_grads
    if learns_input and stream.node is None:  # enable_input_require_grads, or learnt tokens put before the row
        stream.node = tape.node([], [])
    return stream


def _block(walk: Walk, layer: Layer, count: int, stream: Value, mask: Value | None, chain: list) -> tuple[Value, int]:
    """Walk one layer forwards; where it stands for several, hold what the others keep as well."""
    tape = walk.tape
    before, copies = tape.live, walk.copied_bytes
    result = (_checkpointed if walk.stack.checkpointing else decoder_layer)(walk, layer, stream, mask)
    tape.drop(stream)
    copied = walk.copied_bytes - copies
    used = tape.live - before - copied
    if count > 1 and copied:
        walk.copies.append(tape.take(copied * (count - 1), "workspace"))
    rest = [tape.take(used * (count - 1), "activations")] if count > 1 and used > 0 else []
    chain.append([tape.nodes, rest, count])
    tape.nodes = []
    return result, used


def _checkpointed(walk: Walk, layer: Layer, stream: Value, mask: Value | None) -> Value:
    """Forward keeps the layer's input alone; backward walks the layer again (Chen et al. 2016, arXiv 1604.06174)."""
    tape = walk.tape
    nodes, tape.nodes, tape.saving = tape.nodes, [], False
    result = decoder_layer(walk, layer, stream, mask)
    tape.nodes, tape.saving = nodes, True
    source = stream.node

    def replay(tape: Tape, node: Node, given: Buffer) -> None:
        outer, tape.nodes = tape.nodes, []
        inner = tape.node([], []) if source is not None else None
        again = decoder_layer(walk, layer, Value(tape.hold(stream.buffer), stream.size, stream.each, inner), mask)
        tape.free(stream.buffer)
        tape.drop(again)
        nodes, tape.nodes = tape.nodes, outer
        if again.node is not None:
            again.node.gradient = tape.hold(given)
        gradient = _run(tape, nodes, inner)
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


def _back(walk: Walk, chain: list) -> None:
    """The way back through the chain; a stretch of equal layers is walked once and its share of held bytes let go."""
    tape = walk.tape
    tape.moment = "loss"
    tape.backward(chain.pop())
    tape.moment = "backward"
    while len(chain) > 1:
        nodes, rest, count = chain.pop()
        before = tape.causes["gradients"]
        tape.backward(nodes)
        for buffer in rest:
            tape.free(buffer)
        grown = tape.causes["gradients"] - before
        if count > 1:
            tape.add(grown * (count - 1), "gradients")
    tape.backward(chain.pop())
