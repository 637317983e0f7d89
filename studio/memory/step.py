"""A run on the tape: load, one step (embed, layers, head and loss, backward, optimizer), an evaluation, saving."""

from __future__ import annotations

from typing import NamedTuple

from studio.footprint import Footprint
from studio.kernels import SAMPLE_MAX_NEW_TOKENS
from studio.memory.architecture import Architecture
from studio.memory.autograd_tape import Back, FakeTensor, Tape
from studio.memory.head import head_loss
from studio.memory.layer import decoder_layer
from studio.memory.operations import Operations
from studio.memory.ranks import NOTHING, Gathered, buckets
from studio.memory.states import States
from studio.memory.training_loop import TrainingLoop
from studio.memory.walks import Walk, walks

PROMPT_TOKENS = 160  # of a sample prompt


class Step(NamedTuple):
    """Bytes. causes: what was alive at the peak."""

    peak: int
    peak_phase: str
    peak_by_phase: dict[str, int]
    causes: dict[str, int]
    kept: int  # activations a layer keeps from forward to backward
    standing: int  # what is there all through a step


def step(
    architecture: Architecture, loop: TrainingLoop, footprint: Footprint, states: States, whole: Gathered = NOTHING
) -> Step:
    """Walk the run of one process: its largest micro-batch and an optimizer step, with the optimizer's states of the
    step before.

    states: this process's part of them; whole: what of a split model it holds in one piece for a while.
    """
    if parts := _parts(loop):
        steps = (step(architecture, part, footprint, states, whole) for part in parts)
        return max(steps, key=lambda walked: walked.peak)
    if footprint.virtual:
        loop = loop._replace(length=loop.length + footprint.virtual)
    tape = Tape(512 if loop.device == "cuda" else 64, loop.accumulates, loop.world_size if loop.fsdp else 1)
    ops = Operations(tape, loop, architecture, footprint)
    # weights, one by one where they are packed on the way; the optimizer's states come with the first step
    tape.add(states.weights + loop.beside, "weights")
    tape.allocate_briefly(states.loading, "workspace")
    tape.add(states.trained, "trained")
    tape.enter_phase("forward")
    tape.add(states.optimizer, "optimizer")
    tape.add(buckets(states, loop), "gradients")
    if loop.accumulates:
        tape.add(states.gradients, "gradients")
    standing = tape.live
    beside = tape.allocate(whole.while_running, "workspace")
    copies = tape.allocate(_narrow_copies(ops), "workspace")
    kept = _forward_backward(ops)
    tape.release(copies)
    tape.release(beside)
    tape.delete(ops.kept_output)
    tape.enter_phase("optimizer")
    if not loop.accumulates:
        tape.add(states.gradients - tape.gradients, "gradients")
    tape.allocate_briefly(states.step, "workspace")
    tape.add(-states.gradients, "gradients")
    if loop.evaluates or loop.samples or loop.writes:
        beside = tape.allocate(whole.while_running, "workspace")
        _evaluate(ops)
        tape.release(beside)
    if whole.at_end:
        tape.enter_phase("saving")
        tape.allocate_briefly(whole.at_end, "weights")
    phase = max(tape.peaks, key=lambda name: tape.peaks[name])
    return Step(tape.peaks[phase], phase, dict(tape.peaks), tape.at_peak[phase], kept, standing)


def _parts(loop: TrainingLoop) -> list[TrainingLoop]:
    """A step as several that are walked by themselves, of which one has the peak; [] of a single one."""
    if loop.brake:  # a batch of its own beside the gradients of the data's, its logits kept for the way back
        alone = loop._replace(brake=0)
        brake = alone._replace(batch=1, length=loop.brake, longest_row=loop.brake, last_length=0, labels=None)
        return [alone, brake._replace(head="full", accumulates=True, evaluates=False, samples=0)]
    if loop.last_length:
        labels = loop.labels and max(1, loop.labels * loop.last_length // loop.length)
        first = loop._replace(last_length=0, accumulates=False)
        return [first, loop._replace(last_length=0, accumulates=True, length=loop.last_length, labels=labels)]
    return []


def _narrow_copies(ops: Operations) -> int:
    """Bytes of LoRA's matrices in the computing format (worker/fast_lora.py), which are there for a step."""
    loop, footprint = ops.loop, ops.footprint
    if not loop.adapters_in_place or loop.fsdp or footprint.decomposed:
        return 0
    if loop.autocast_itemsize in (0, footprint.trained_itemsize):
        return 0
    linears = [linear for layer in ops.architecture.layers for linear in layer.linears]
    numels = [footprint.low_rank.get(linear.name, 0) * (linear.in_features + linear.out_features) for linear in linears]
    return sum(numels) * loop.autocast_itemsize


def _forward_backward(ops: Operations) -> int:
    """One micro-batch forwards and backwards. Returns the bytes that a layer keeps."""
    tape, architecture = ops.tape, ops.architecture
    inputs = _inputs(ops)
    mask = inputs[-1]
    stream = _embedded(ops)
    first = tape.alias(stream)  # held by the model's frame, or by peft's where virtual tokens are put before it
    chain: list = [tape.nodes]
    tape.nodes = []
    kept_bytes = 0
    for walk in walks(architecture, ops.footprint, ops.loop):
        stream, used = _block(ops, walk, stream, mask, chain)
        kept_bytes = max(kept_bytes, used)
    final = ops.norm(stream, architecture.hidden_size, ops.trains_final_norm)
    tape.delete(
        stream, *([] if ops.footprint.virtual else [first]), *([] if ops.loop.checkpointing else [inputs.pop()])
    )
    tape.enter_phase("loss")
    loss = head_loss(ops, final)
    tape.delete(final, *([first] if ops.footprint.virtual else []))
    chain.append(tape.nodes)
    tape.nodes = []
    for storage in ops.copies:
        tape.release(storage)
    seed = tape.allocate(4, "activations")
    if loss.grad_fn is not None:
        loss.grad_fn.grad = seed
    _back(ops, chain)
    tape.delete(*inputs)
    return kept_bytes


def _inputs(ops: Operations) -> list[FakeTensor | None]:
    """Ids, labels and mask of the rows; cosines and sines of the positions; the square mask, else None.

    Eager attention adds it to the scores (in the stream's type); SDPA is given booleans, and only where its causal flag
    will not do.
    """
    tape, loop = ops.tape, ops.loop
    angles, square = loop.length * ops.architecture.head_dim * 2, None
    if loop.attention == "eager" or loop.mask and loop.attention != "flash":
        numel = loop.batch * loop.length * (loop.length + ops.footprint.prefix)
        square = tape.new(numel, loop.hidden_itemsize if loop.attention == "eager" else 1)
    return [tape.new(3 * loop.tokens, 8), tape.new(angles, loop.hidden_itemsize), square]


def _embedded(ops: Operations) -> FakeTensor:
    tape, loop = ops.tape, ops.loop
    architecture, footprint = ops.architecture, ops.footprint
    trained_numel = architecture.embedding_numel if ops.trains_embedding else footprint.rows
    # peft looks tokens up in a copy of the table with the trained rows in it
    copy = architecture.embedding_numel * loop.weight_itemsize if footprint.rows else 0
    stream = tape.op(
        loop.tokens * architecture.hidden_size,
        loop.hidden_itemsize,
        [],
        back=Back(weights=trained_numel * footprint.trained_itemsize, scratch=2 * copy),
    )
    tape.allocate_briefly(copy, "workspace")
    if stream.grad_fn is not None or not (footprint.virtual or loop.input_grads):
        return stream
    row = None  # enable_input_require_grads beside learnt tokens: the row's own vectors are a leaf, and stay
    if footprint.virtual and loop.input_grads:
        row = tape.new(loop.batch * (loop.length - footprint.virtual) * architecture.hidden_size, loop.hidden_itemsize)
    stream.grad_fn = tape.node([], [row.storage] if row else [])
    tape.delete(row)
    return stream


def _block(
    ops: Operations, walk: Walk, stream: FakeTensor, mask: FakeTensor | None, chain: list
) -> tuple[FakeTensor, int]:
    """Walk one layer forwards; where it stands for several, hold what the others keep as well."""
    tape, (layer, count, walked) = ops.tape, walk
    before, copies = tape.live, ops.copied_bytes
    result = walked(ops, layer, stream, mask)
    tape.delete(stream)
    copied = ops.copied_bytes - copies
    used = tape.live - before - copied
    if count > 1 and copied:
        ops.copies.append(tape.allocate(copied * (count - 1), "workspace"))
    rest = [tape.allocate(used * (count - 1), "activations")] if count > 1 and used > 0 else []
    chain.append([tape.nodes, rest, count])
    tape.nodes = []
    return result, used


def _back(ops: Operations, chain: list) -> None:
    """Backward through the chain; a stretch of equal layers is walked once, and what the others kept is released."""
    tape = ops.tape
    tape.enter_phase("loss")
    tape.backward(chain.pop())
    tape.enter_phase("backward")
    while len(chain) > 1:
        nodes, rest, count = chain.pop()
        before = tape.gradients
        tape.backward(nodes)
        for storage in rest:
            tape.release(storage)
        grown = tape.gradients - before
        if count > 1:
            tape.grow(grown * (count - 1))
    tape.backward(chain.pop())


def _evaluate(ops: Operations) -> None:
    """A held-out batch forwards without a graph, then answers to sample prompts, with their keys and values kept."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    tape.enter_phase("evaluation")
    tape.saving, ops.copies, ops.copied_bytes = False, [], 0
    if loop.evaluates and not loop.writes:
        inputs = _inputs(ops)
        stream = _embedded(ops)
        for layer, count, _ in walks(architecture, ops.footprint, loop):
            before, copies = stream, ops.copied_bytes
            stream = decoder_layer(ops, layer, stream, inputs[-1])
            tape.delete(before)
            if count > 1 and ops.copied_bytes > copies:
                ops.copies.append(tape.allocate((ops.copied_bytes - copies) * (count - 1), "workspace"))
        final = ops.norm(stream, architecture.hidden_size, ops.trains_final_norm)
        tape.delete(stream)
        head_loss(ops, final)
        tape.delete(final, *inputs)
        for storage in ops.copies:
            tape.release(storage)
        tape.nodes = []
    if loop.writes:
        _write_answers(ops)
    elif loop.samples:
        tokens = PROMPT_TOKENS + SAMPLE_MAX_NEW_TOKENS
        cache = 2 * len(architecture.layers) * architecture.kv_size * tokens * loop.compute_itemsize
        logits = architecture.vocab_size * (4 + loop.compute_itemsize)
        tape.allocate_briefly(loop.samples * (cache + logits), "activations")


def _write_answers(ops: Operations) -> None:
    """The keys and values of all answers that are written at once, a layer's copied as they grow by a token, and logits
    in the computing format, in float32 and on the way to the CPU.
    """
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    layer = 2 * architecture.kv_size * loop.writes * loop.longest_row * loop.compute_itemsize
    logits = loop.writes * architecture.vocab_size * (4 + loop.compute_itemsize)
    tape.allocate_briefly(layer * (len(architecture.layers) + 1) + logits, "activations")
