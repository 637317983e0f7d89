"""Head and loss on the tape: logits of a few positions at a time, or all of them at once."""

from __future__ import annotations

from studio.kernels import HEAD_GRAD_POSITIONS, LOGIT_CHUNK_BYTES
from studio.memory.tape import Value
from studio.memory.walk import Walk


def head_loss(walk: Walk, final: Value) -> Value:
    """The loss of a batch from its final hidden states [tokens, hidden]."""
    kinds = {"chunked": chunked, "fused": fused, "full": full}
    return kinds[walk.stack.head](walk, final)


def chunked(walk: Walk, final: Value) -> Value:
    """worker/loss.py: hidden states of labelled positions, logits of some of them at a time, gradient formed in forward."""
    tape, stack, anatomy, moves = walk.tape, walk.stack, walk.anatomy, walk.head_moves
    labels = stack.tokens if stack.labels is None else stack.labels
    stored, each = walk.footprint.each if moves else stack.base, stack.compute
    flat = _flat(walk, final)
    chosen = tape.op(labels * anatomy.hidden, final.each, [flat])
    made = [flat, walk.cast(chosen, each)]
    if stored != each or walk.footprint.rows:
        made.append(_extra(walk, anatomy.embedding, each))
    inner = _extra(walk, labels * anatomy.hidden, each)
    rows = max(1, min(labels, LOGIT_CHUNK_BYTES[stack.device] // (4 * anatomy.vocabulary)))
    block = max(rows, min(labels, HEAD_GRAD_POSITIONS)) if moves else rows
    several = (
        labels > block
    )  # the head's gradient is then summed in float32; of one block it is there after the softmax only
    weight = _extra(walk, anatomy.embedding, 4) if moves and several else None
    made += [_extra(walk, block * anatomy.vocabulary, each), _extra(walk, rows * anatomy.vocabulary, 4)]
    converted = each == 2 and not (
        stack.half and stack.device == "cuda"
    )  # torch's softmax widens bf16 into a copy of its own
    tape.scratch(rows * anatomy.vocabulary * 4 * (anatomy.traits.bent or int(converted)), "logits")
    if moves and several:
        tape.scratch(anatomy.embedding * each, "logits")
    elif moves:
        weight = _extra(walk, anatomy.embedding, each)
    narrow = moves and walk.footprint.each == 2  # the table's gradient is formed in float32 all the same
    loss = tape.op(
        1,
        4,
        [chosen],
        [inner] + ([weight] if weight else []),
        weights=anatomy.embedding * walk.footprint.each if moves else 0,
        back_scratch=anatomy.embedding * 4 if narrow else 0,
    )
    tape.drop(chosen, inner, weight, *made)
    tape.scratch(stack.batch * anatomy.vocabulary * each, "logits")  # the head's one position a row
    return loss


def _flat(walk: Walk, final: Value) -> Value:
    """All positions but the rows' last in one list: a copy of several rows, a view of one; its gradient is a tensor of its own in either case."""
    if walk.stack.batch > 1 or final.node is None:
        return walk.tape.op(final.size, final.each, [final]) if walk.stack.batch > 1 else walk.tape.view(final)
    return Value(walk.tape.hold(final.buffer), final.size, final.each, walk.tape.node([(final.node, final.bytes)], []))


def _extra(walk: Walk, size: int, each: int) -> Value:
    return Value(walk.tape.take(size * each, "logits"), size, each, None)


def fused(walk: Walk, final: Value) -> Value:
    """Liger's fused linear cross entropy (arXiv 2410.10989, section 3.2): chunks of T·h/V rows, gradient of the hidden states kept."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    each = stack.compute
    shifted = tape.op(final.size, each, [final])
    rows = (
        1 << max(0, -(-stack.tokens // max(1, -(-anatomy.vocabulary // anatomy.hidden))) - 1).bit_length()
    )  # its next power of two
    inner = Value(tape.take(final.size * each, "logits"), final.size, each, None)
    tape.scratch(rows * anatomy.vocabulary * (each + 4), "logits")
    loss = tape.op(1, 4, [shifted], [inner], weights=anatomy.embedding * walk.footprint.each if walk.head_moves else 0)
    tape.drop(shifted, inner)
    return loss


def full(walk: Walk, final: Value) -> Value:
    """All logits, a float32 copy, its log-softmax kept, two gradients of that size (transformers' ForCausalLMLoss)."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    each = (
        walk.footprint.each
        if walk.head_moves and not stack.autocast
        else 4
        if stack.kbit and not stack.autocast
        else stack.compute
    )
    given = walk.cast(final, each)
    logits = tape.op(
        stack.tokens * anatomy.vocabulary,
        each,
        [given],
        [given] if walk.head_moves else [],
        cause="logits",
        weights=anatomy.embedding * walk.footprint.each if walk.head_moves else 0,
    )
    tape.drop(given)
    wide = _upcast(walk, logits)
    if stack.early_upcast:
        tape.drop(logits)
        logits = tape.name(wide)
    loss = _cross_entropy(walk, wide)
    tape.drop(wide)
    if stack.output:
        walk.held = logits
    else:
        tape.drop(logits)
    return loss


def _upcast(walk: Walk, logits: Value) -> Value:
    return (
        walk.tape.view(logits)
        if logits.each == 4 or walk.stack.raw_loss
        else walk.tape.op(logits.size, 4, [logits], cause="logits")
    )


def _cross_entropy(walk: Walk, wide: Value) -> Value:
    """Of float32 logits (of raw ones autocast lifts a copy); where it writes its gradient over them, nothing else is needed."""
    tape, stack, each = walk.tape, walk.stack, 4 if walk.stack.autocast else wide.each
    part = tape.op(wide.size, wide.each, [wide], cause="logits") if stack.shifted else tape.view(wide)
    if stack.in_place:
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
