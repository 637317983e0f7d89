"""A run on the tape: load, then one step (embed, layers, head and loss, the way back, the optimizer), an evaluation, and saving.

Gives the peak of every moment.
"""

from __future__ import annotations

from typing import NamedTuple

from studio.footprint import Footprint
from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.memory.architecture import Architecture, Layer
from studio.memory.autograd_tape import Tape, Value
from studio.memory.checkpointed import checkpointed
from studio.memory.head import head_loss
from studio.memory.layer import decoder_layer
from studio.memory.operations import Walk
from studio.memory.ranks import NOTHING, Gathered, buckets
from studio.memory.states import States
from studio.memory.training_loop import TrainingLoop

PROMPT_TOKENS = 160  # of a sample prompt
MOMENTS = ("load", "forward", "loss", "backward", "optimizer", "evaluation", "saving")


class Step(NamedTuple):
    """Bytes. by_moment: the highest of each moment; causes: what was alive at the highest of all; by_phase: the same for each."""

    peak: int
    moment: str
    by_moment: dict[str, int]
    causes: dict[str, int]
    by_phase: dict[str, dict[str, int]]
    kept: int  # activations a layer keeps from forward to backward
    standing: int  # what is there all through a step


def step(
    architecture: Architecture, loop: TrainingLoop, footprint: Footprint, states: States, whole: Gathered = NOTHING
) -> Step:
    """Walk the run of one process: its largest micro-batch and an optimizer step, the optimizer's states being there from the step before.

    states: this process's part of them; whole: what of a split model it holds in one piece for a while.
    """
    if loop.rest:
        last = loop._replace(length=loop.rest, labels=loop.labels and max(1, loop.labels * loop.rest // loop.length))
        both = (loop._replace(accumulates=False), last._replace(accumulates=True))
        return max(
            (step(architecture, one._replace(rest=0), footprint, states, whole) for one in both),
            key=lambda walked: walked.peak,
        )
    if footprint.virtual:
        loop = loop._replace(length=loop.length + footprint.virtual)
    tape = Tape(512 if loop.device == "cuda" else 64, loop.accumulates, loop.ranks if loop.split else 1)
    walk = Walk(tape, loop, architecture, footprint)
    _load(tape, states, buckets(states, loop))
    if loop.accumulates:
        tape.add(states.gradients, "gradients")
    standing = tape.live
    beside = tape.take(whole.while_running, "workspace")
    kept = _forward_backward(walk)
    tape.free(beside)
    tape.drop(walk.held)
    tape.enter("optimizer")
    if not loop.accumulates:
        tape.add(states.gradients - tape.gradients, "gradients")
    tape.scratch(states.step, "workspace")
    tape.add(-states.gradients, "gradients")
    if loop.evaluates or loop.answers:
        beside = tape.take(whole.while_running, "workspace")
        _evaluate(walk)
        tape.free(beside)
    if whole.at_end:
        tape.enter("saving")
        tape.scratch(whole.at_end, "weights")
    moment = max(tape.peaks, key=lambda name: tape.peaks[name])
    return Step(tape.peaks[moment], moment, dict(tape.peaks), tape.at_peak[moment], dict(tape.at_peak), kept, standing)


def _load(tape: Tape, states: States, summed: int) -> None:
    """Weights, one by one where they are packed on the way; then what is trained; the optimizer's states come with the first step."""
    tape.add(states.weights, "weights")
    tape.scratch(states.loading, "workspace")
    tape.add(states.trained, "trained")
    tape.enter("forward")
    tape.add(states.optimizer, "optimizer")
    if summed:
        tape.add(summed, "gradients")


def _forward_backward(walk: Walk) -> int:
    """One micro-batch there and back. Returns what a layer keeps."""
    tape, architecture = walk.tape, walk.architecture
    inputs = _inputs(walk)
    mask = inputs[-1]
    stream = _embedded(walk)
    first = tape.name(
        stream
    )  # the model's own frame, or peft's where virtual tokens are put before it, keeps this name
    chain: list = [tape.nodes]
    tape.nodes = []
    kept = 0
    for layer, count in _plan(architecture.layers, walk.footprint):
        stream, used = _block(walk, layer, count, stream, mask, chain)
        kept = max(kept, used)
    final = walk.norm(stream, architecture.hidden, walk.final_moves)
    tape.drop(
        stream, *([] if walk.footprint.virtual else [first]), *([] if walk.loop.checkpointing else [inputs.pop()])
    )
    tape.enter("loss")
    loss = head_loss(walk, final)
    tape.drop(final, *([first] if walk.footprint.virtual else []))
    chain.append(tape.nodes)
    tape.nodes = []
    for buffer in walk.copies:
        tape.free(buffer)
    seed = tape.take(4, "activations")
    if loss.node is not None:
        loss.node.gradient = seed
    _back(walk, chain)
    tape.drop(*inputs)
    return kept


def _inputs(walk: Walk) -> list[Value | None]:
    """Ids, labels and mask of the rows; cosines and sines of the positions; the square mask, else None.

    Eager attention adds it to the scores (numbers of the stream's type); SDPA is given booleans, and only where its causal flag will not do.
    """
    tape, loop = walk.tape, walk.loop
    angles, square = loop.length * walk.architecture.head_dim * 2, None
    if loop.attention == "eager" or loop.mask and loop.attention != "flash":
        size, each = (
            loop.batch * loop.length * (loop.length + walk.footprint.prefix),
            loop.stream if loop.attention == "eager" else 1,
        )
        square = Value(tape.take(size * each, "activations"), size, each, None)
    return [
        Value(tape.take(loop.tokens * 8 * 3, "activations"), 3 * loop.tokens, 8, None),
        Value(tape.take(angles * loop.stream, "activations"), angles, loop.stream, None),
        square,
    ]


def _plan(layers: tuple[Layer, ...], footprint: Footprint) -> list[tuple[Layer, int]]:
    """Stretches of equal layers. The first and the last layer of all are walked by themselves, the others stand for each other."""
    plan: list[tuple[Layer, int]] = []
    marks: list[tuple] = []
    for place, layer in enumerate(layers):
        mark = (
            place == 0,
            place == len(layers) - 1,
            layer.norms,
            layer.inner,
            layer.loose,
            tuple(
                (
                    linear.part,
                    linear.inputs,
                    linear.outputs,
                    footprint.low_rank.get(linear.name),
                    footprint.bottleneck.get(linear.name),
                    footprint.scaled.get(linear.name),
                    f"{linear.name}.weight" in footprint.weights,
                )
                for linear in layer.linears
            ),
        )
        if marks and marks[-1] == mark:
            plan[-1] = (plan[-1][0], plan[-1][1] + 1)
        else:
            plan.append((layer, 1))
            marks.append(mark)
    return plan


def _embedded(walk: Walk) -> Value:
    tape, loop, architecture = walk.tape, walk.loop, walk.architecture
    size = loop.tokens * architecture.hidden
    weights = (
        architecture.embedding * walk.footprint.each if walk.table_moves else walk.footprint.rows * walk.footprint.each
    )
    copy = (
        architecture.embedding * loop.base if walk.footprint.rows else 0
    )  # peft looks tokens up in a copy of the table with the trained rows in it
    stream = tape.op(size, loop.stream, [], weights=weights, scratch=copy, back_scratch=2 * copy)
    learns_input = walk.footprint.virtual or loop.input_grads
    if learns_input and stream.node is None:  # enable_input_require_grads, or learnt tokens put before the row
        own = (
            [
                tape.take(
                    loop.batch * (loop.length - walk.footprint.virtual) * architecture.hidden * loop.stream,
                    "activations",
                )
            ]
            if walk.footprint.virtual and loop.input_grads
            else []
        )  # both: the row's own vectors are a leaf, and stay
        stream.node = tape.node([], own)
        for buffer in own:
            tape.free(buffer)
    return stream


def _block(walk: Walk, layer: Layer, count: int, stream: Value, mask: Value | None, chain: list) -> tuple[Value, int]:
    """Walk one layer forwards; where it stands for several, hold what the others keep as well."""
    tape = walk.tape
    before, copies = tape.live, walk.copied_bytes
    result = (checkpointed if walk.loop.checkpointing else decoder_layer)(walk, layer, stream, mask)
    tape.drop(stream)
    copied = walk.copied_bytes - copies
    used = tape.live - before - copied
    if count > 1 and copied:
        walk.copies.append(tape.take(copied * (count - 1), "workspace"))
    rest = [tape.take(used * (count - 1), "activations")] if count > 1 and used > 0 else []
    chain.append([tape.nodes, rest, count])
    tape.nodes = []
    return result, used


def _back(walk: Walk, chain: list) -> None:
    """The way back through the chain; a stretch of equal layers is walked once and its share of held bytes let go."""
    tape = walk.tape
    tape.enter("loss")
    tape.backward(chain.pop())
    tape.enter("backward")
    while len(chain) > 1:
        nodes, rest, count = chain.pop()
        before = tape.gradients
        tape.backward(nodes)
        for buffer in rest:
            tape.free(buffer)
        grown = tape.gradients - before
        if count > 1:
            tape.grow(grown * (count - 1))
    tape.backward(chain.pop())


def _evaluate(walk: Walk) -> None:
    """A held-out batch forwards without a graph, then an answer to a sample prompt, with its keys and values kept."""
    tape, loop, architecture = walk.tape, walk.loop, walk.architecture
    tape.enter("evaluation")
    tape.saving, walk.copies, walk.copied_bytes = False, [], 0
    if loop.evaluates:
        inputs = _inputs(walk)
        stream = _embedded(walk)
        for layer, count in _plan(architecture.layers, walk.footprint):
            before, copies = stream, walk.copied_bytes
            stream = decoder_layer(walk, layer, stream, inputs[-1])
            tape.drop(before)
            if count > 1 and walk.copied_bytes > copies:
                walk.copies.append(tape.take((walk.copied_bytes - copies) * (count - 1), "workspace"))
        final = walk.norm(stream, architecture.hidden, walk.final_moves)
        tape.drop(stream)
        head_loss(walk, final)
        tape.drop(final, *inputs)
        for buffer in walk.copies:
            tape.free(buffer)
        tape.nodes = []
    if loop.answers:
        cache = (
            2 * len(architecture.layers) * architecture.keys * (PROMPT_TOKENS + SAMPLE_MAX_NEW_TOKENS) * loop.compute
        )
        tape.scratch(cache + architecture.vocabulary * (4 + loop.compute), "activations")
