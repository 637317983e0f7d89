"""Head and loss on the tape: logits of a few positions at a time, or all of them at once."""

from __future__ import annotations

from studio.kernels import HEAD_GRAD_POSITIONS, LOGIT_CHUNK_BYTES
from studio.memory.autograd_tape import Value
from studio.memory.operations import Walk


def head_loss(walk: Walk, final: Value) -> Value:
    """The loss of a batch from its final hidden states [tokens, hidden]."""
    kinds = {"chunked": chunked, "fused": fused, "full": full}
    return kinds[walk.loop.head](walk, final)


def chunked(walk: Walk, final: Value) -> Value:
    """worker/loss.py: hidden states of labelled positions, logits of some of them at a time, gradient formed in forward."""
    tape, loop, architecture, moves = walk.tape, walk.loop, walk.architecture, walk.head_moves
    labels = loop.tokens if loop.labels is None else loop.labels
    stored, each = walk.footprint.each if moves else loop.base, loop.compute
    flat = _flat(walk, final)
    chosen = tape.op(labels * architecture.hidden, final.each, [flat])
    made = [flat, walk.cast(chosen, each)]
    if stored != each or walk.footprint.rows:
        made.append(_extra(walk, architecture.embedding, each))
    inner = _extra(walk, labels * architecture.hidden, each)
    rows = max(1, min(labels, LOGIT_CHUNK_BYTES[loop.device] // (4 * architecture.vocabulary)))
    block = max(rows, min(labels, HEAD_GRAD_POSITIONS)) if moves else rows
    several = (
        labels > block
    )  # the head's gradient is then summed in float32; of one block it is there after the softmax only
    weight = _extra(walk, architecture.embedding, 4) if moves and several else None
    made += [_extra(walk, block * architecture.vocabulary, each), _extra(walk, rows * architecture.vocabulary, 4)]
    converted = each == 2 and not (
        loop.half and loop.device == "cuda"
    )  # torch's softmax widens bf16 into a copy of its own
    tape.scratch(rows * architecture.vocabulary * 4 * (architecture.traits.bent or int(converted)), "logits")
    if moves and several:
        tape.scratch(architecture.embedding * each, "logits")
    elif moves:
        weight = _extra(walk, architecture.embedding, each)
    narrow = moves and walk.footprint.each == 2  # the table's gradient is formed in float32 all the same
    loss = tape.op(
        1,
        4,
        [chosen],
        [inner] + ([weight] if weight else []),
        weights=architecture.embedding * walk.footprint.each if moves else 0,
        back_scratch=architecture.embedding * 4 if narrow else 0,
    )
    tape.drop(chosen, inner, weight, *made)
    tape.scratch(loop.batch * architecture.vocabulary * each, "logits")  # the head's one position a row
    return loss


def _flat(walk: Walk, final: Value) -> Value:
    """All positions but the rows' last in one list: a copy of several rows, a view of one; its gradient is a tensor of its own in either case."""
    if walk.loop.batch > 1 or final.node is None:
        return walk.tape.op(final.size, final.each, [final]) if walk.loop.batch > 1 else walk.tape.view(final)
    return Value(walk.tape.hold(final.buffer), final.size, final.each, walk.tape.node([(final.node, final.bytes)], []))


def _extra(walk: Walk, size: int, each: int) -> Value:
    return Value(walk.tape.take(size * each, "logits"), size, each, None)


def fused(walk: Walk, final: Value) -> Value:
    """Liger's fused linear cross entropy (arXiv 2410.10989, section 3.2): chunks of T·h/V rows, gradient of the hidden states kept."""
    tape, loop, architecture = walk.tape, walk.loop, walk.architecture
    each = loop.compute
    shifted = tape.op(final.size, each, [final])
    rows = (
        1 << max(0, -(-loop.tokens // max(1, -(-architecture.vocabulary // architecture.hidden))) - 1).bit_length()
    )  # its next power of two
    inner = Value(tape.take(final.size * each, "logits"), final.size, each, None)
    tape.scratch(rows * architecture.vocabulary * (each + 4), "logits")
    loss = tape.op(
        1, 4, [shifted], [inner], weights=architecture.embedding * walk.footprint.each if walk.head_moves else 0
    )
    tape.drop(shifted, inner)
    return loss


def full(walk: Walk, final: Value) -> Value:
    """All logits, a float32 copy, its log-softmax kept, two gradients of that size (transformers' ForCausalLMLoss)."""
    tape, loop, architecture = walk.tape, walk.loop, walk.architecture
    each = (
        walk.footprint.each
        if walk.head_moves and not loop.autocast
        else 4
        if loop.kbit and not loop.autocast
        else loop.compute
    )
    given = walk.cast(final, each)
    logits = tape.op(
        loop.tokens * architecture.vocabulary,
        each,
        [given],
        [given] if walk.head_moves else [],
        cause="logits",
        weights=architecture.embedding * walk.footprint.each if walk.head_moves else 0,
    )
    tape.drop(given)
    wide = _upcast(walk, logits)
    if loop.early_upcast:
        tape.drop(logits)
        logits = tape.name(wide)
    loss = _cross_entropy(walk, wide)
    tape.drop(wide)
    if loop.output:
        walk.held = logits
    else:
        tape.drop(logits)
    return loss


def _upcast(walk: Walk, logits: Value) -> Value:
    return (
        walk.tape.view(logits)
        if logits.each == 4 or walk.loop.raw_loss
        else walk.tape.op(logits.size, 4, [logits], cause="logits")
    )


def _cross_entropy(walk: Walk, wide: Value) -> Value:
    """Of float32 logits (of raw ones autocast lifts a copy); where it writes its gradient over them, nothing else is needed."""
    tape, loop, each = walk.tape, walk.loop, 4 if walk.loop.autocast else wide.each
    part = tape.op(wide.size, wide.each, [wide], cause="logits") if loop.shifted else tape.view(wide)
    if loop.in_place:
        loss = Value(
            tape.take(4, "logits"),
            1,
            4,
            tape.node([], [part.buffer], replay=lambda tape, node, given: tape.send(part.node, tape.hold(part.buffer))),
        )
    else:
        lifted = walk.cast(part, each)
        soft = tape.op(wide.size, each, [lifted], saves_result=True, cause="logits")
        tape.drop(lifted)
        loss = tape.op(1, 4, [soft], cause="logits")
        tape.drop(soft)
    tape.drop(part)
    return loss
