"""Head and loss on the tape: logits of a few positions at a time, or all of them at once."""

from __future__ import annotations

from studio.memory.tape import Value
from studio.memory.walk import Walk

CHUNK = 256  # positions whose logits exist at once in worker/loss.py


def head_loss(walk: Walk, final: Value) -> Value:
    """The loss of a batch from its final hidden states [tokens, hidden]."""
    kinds = {"chunked": chunked, "fused": fused, "full": full}
    return kinds[walk.stack.head](walk, final)


def chunked(walk: Walk, final: Value) -> Value:
    """worker/loss.py: hidden states of labelled positions, logits of 256 of them, gradient formed in forward."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    labels = stack.tokens if stack.labels is None else stack.labels
    tape.scratch(stack.batch * anatomy.vocabulary * stack.base, "logits")
    moves = walk.head_moves
    each = walk.footprint.each if moves else 4 if stack.kbit else stack.base
    chosen = tape.op(labels * anatomy.hidden, final.each, [final])
    given = walk.cast(chosen, each)
    tape.drop(chosen)
    rows = min(CHUNK, labels)
    inner = Value(tape.take(labels * anatomy.hidden * each, "logits"), labels * anatomy.hidden, each, None)
    weight = None
    if moves:
        weight = Value(tape.take(anatomy.embedding * 4, "logits"), anatomy.embedding, 4, None)
        tape.scratch(rows * anatomy.vocabulary * (each + 4) + anatomy.embedding * each, "logits")
    tape.scratch(rows * anatomy.vocabulary * (4 + 2 * each if each != 4 else 8), "logits")
    loss = tape.op(1, 4, [given], [inner] + ([weight] if weight else []), weights=anatomy.embedding * walk.footprint.each if walk.head_moves else 0,
                   back_scratch=anatomy.embedding * 4 if weight and each != 4 else 0)
    tape.drop(given, inner, weight)
    return loss


def fused(walk: Walk, final: Value) -> Value:
    """Liger's fused linear cross entropy (arXiv 2410.10989, section 3.2): chunks of T·h/V rows, gradient of the hidden states kept."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    each = stack.compute
    shifted = tape.op(final.size, each, [final])
    rows = -(-stack.tokens // max(1, -(-anatomy.vocabulary // anatomy.hidden)))
    inner = Value(tape.take(final.size * each, "logits"), final.size, each, None)
    tape.scratch(rows * anatomy.vocabulary * (each + 4), "logits")
    loss = tape.op(1, 4, [shifted], [inner], weights=anatomy.embedding * walk.footprint.each if walk.head_moves else 0)
    tape.drop(shifted, inner)
    return loss


def full(walk: Walk, final: Value) -> Value:
    """All logits; a float32 copy, its log-softmax kept, two gradients of that size (transformers' ForCausalLMLoss)."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    each = 4 if stack.kbit and not stack.autocast else stack.compute
    size = stack.tokens * anatomy.vocabulary
    given = walk.cast(final, each)
    logits = tape.op(size, each, [given], [given] if walk.head_moves else [], cause="logits",
                     weights=anatomy.embedding * walk.footprint.each if walk.head_moves else 0)
    tape.drop(given)
    held = Value(tape.take(size * (stack.output - each), "logits"), size, stack.output, None) if stack.output > each else None
    wide = tape.op(size, 4, [logits], cause="logits") if each != 4 else tape.view(logits)
    soft = tape.op(size, 4, [wide], saves_result=True, cause="logits")
    tape.drop(wide)
    loss = tape.op(1, 4, [soft], cause="logits")
    tape.drop(soft)
    if not stack.output:
        tape.drop(logits)
    if held is not None and not stack.output:
        tape.drop(held)
    return loss
