"""Head and loss on the tape: logits of a few positions at a time, or all of them at once."""

from __future__ import annotations

from studio.kernels import HEAD_GRAD_POSITIONS, LOGIT_CHUNK_BYTES
from studio.memory.autograd_tape import FakeTensor
from studio.memory.operations import Operations


def head_loss(ops: Operations, final: FakeTensor) -> FakeTensor:
    """The loss of a batch from its final hidden states [tokens, hidden]."""
    kinds = {"chunked": chunked, "fused": fused, "full": full}
    return kinds[ops.loop.head](ops, final)


def chunked(ops: Operations, final: FakeTensor) -> FakeTensor:
    """worker/loss.py: hidden states of labelled positions, logits of some of them at a time, gradient formed in
    forward.
    """
    tape, loop, architecture, moves = ops.tape, ops.loop, ops.architecture, ops.trains_head
    labels = loop.tokens if loop.labels is None else loop.labels
    stored, itemsize = ops.footprint.trained_itemsize if moves else loop.weight_itemsize, loop.compute_itemsize
    flat = _flat(ops, final)
    chosen = tape.op(labels * architecture.hidden_size, final.itemsize, [flat])
    made = [flat, ops.cast(chosen, itemsize)]
    if stored != itemsize or ops.footprint.rows:
        made.append(_extra(ops, architecture.embedding_numel, itemsize))
    inner = _extra(ops, labels * architecture.hidden_size, itemsize)
    rows = max(1, min(labels, LOGIT_CHUNK_BYTES[loop.device] // (4 * architecture.vocab_size)))
    block = max(rows, min(labels, HEAD_GRAD_POSITIONS)) if moves else rows
    several = (
        labels > block
    )  # the head's gradient is then summed in float32; of one block it is there after the softmax only
    weight = _extra(ops, architecture.embedding_numel, 4) if moves and several else None
    made += [_extra(ops, block * architecture.vocab_size, itemsize), _extra(ops, rows * architecture.vocab_size, 4)]
    converted = itemsize == 2 and not (
        loop.fp16 and loop.device == "cuda"
    )  # torch's softmax widens bf16 into a copy of its own
    tape.allocate_briefly(
        rows * architecture.vocab_size * 4 * (architecture.traits.logit_buffers or int(converted)), "logits"
    )
    if moves and several:
        tape.allocate_briefly(architecture.embedding_numel * itemsize, "logits")
    elif moves:
        weight = _extra(ops, architecture.embedding_numel, itemsize)
    narrow = moves and ops.footprint.trained_itemsize == 2  # the table's gradient is formed in float32 all the same
    loss = tape.op(
        1,
        4,
        [chosen],
        [inner] + ([weight] if weight else []),
        weights=architecture.embedding_numel * ops.footprint.trained_itemsize if moves else 0,
        back_scratch=architecture.embedding_numel * 4 if narrow else 0,
    )
    tape.delete(chosen, inner, weight, *made)
    tape.allocate_briefly(loop.batch * architecture.vocab_size * itemsize, "logits")  # the head's one position a row
    return loss


def _flat(ops: Operations, final: FakeTensor) -> FakeTensor:
    """All positions but the rows' last in one list: a copy of several rows, a view of one; its gradient is a tensor of
    its own in either case.
    """
    if ops.loop.batch > 1 or final.grad_fn is None:
        return ops.tape.op(final.numel, final.itemsize, [final]) if ops.loop.batch > 1 else ops.tape.view(final)
    return FakeTensor(
        ops.tape.retain(final.storage), final.numel, final.itemsize, ops.tape.node([(final.grad_fn, final.nbytes)], [])
    )


def _extra(ops: Operations, size: int, itemsize: int) -> FakeTensor:
    return FakeTensor(ops.tape.allocate(size * itemsize, "logits"), size, itemsize, None)


def fused(ops: Operations, final: FakeTensor) -> FakeTensor:
    """Liger's fused linear cross entropy (arXiv 2410.10989, section 3.2): chunks of T·h/V rows, gradient of the hidden
    states kept.
    """
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    itemsize = loop.compute_itemsize
    shifted = tape.op(final.numel, itemsize, [final])
    rows = (
        1 << max(0, -(-loop.tokens // max(1, -(-architecture.vocab_size // architecture.hidden_size))) - 1).bit_length()
    )  # its next power of two
    inner = FakeTensor(tape.allocate(final.numel * itemsize, "logits"), final.numel, itemsize, None)
    tape.allocate_briefly(rows * architecture.vocab_size * (itemsize + 4), "logits")
    loss = tape.op(
        1,
        4,
        [shifted],
        [inner],
        weights=architecture.embedding_numel * ops.footprint.trained_itemsize if ops.trains_head else 0,
    )
    tape.delete(shifted, inner)
    return loss


def full(ops: Operations, final: FakeTensor) -> FakeTensor:
    """All logits, a float32 copy, its log-softmax kept, two gradients of that size (transformers' ForCausalLMLoss)."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    itemsize = (
        ops.footprint.trained_itemsize
        if ops.trains_head and not loop.autocast_itemsize
        else 4
        if loop.kbit and not loop.autocast_itemsize
        else loop.compute_itemsize
    )
    given = ops.cast(final, itemsize)
    logits = tape.op(
        loop.tokens * architecture.vocab_size,
        itemsize,
        [given],
        [given] if ops.trains_head else [],
        cause="logits",
        weights=architecture.embedding_numel * ops.footprint.trained_itemsize if ops.trains_head else 0,
    )
    tape.delete(given)
    wide = _upcast(ops, logits)
    if loop.early_upcast:
        tape.delete(logits)
        logits = tape.alias(wide)
    loss = _cross_entropy(ops, wide)
    tape.delete(wide)
    if loop.keeps_output:
        ops.kept_output = logits
    else:
        tape.delete(logits)
    return loss


def _upcast(ops: Operations, logits: FakeTensor) -> FakeTensor:
    return (
        ops.tape.view(logits)
        if logits.itemsize == 4 or ops.loop.loss_in_logits_dtype
        else ops.tape.op(logits.numel, 4, [logits], cause="logits")
    )


def _cross_entropy(ops: Operations, wide: FakeTensor) -> FakeTensor:
    """Of float32 logits (of raw ones autocast lifts a copy); where it writes its gradient over them, nothing else is
    needed.
    """
    tape, loop, itemsize = ops.tape, ops.loop, 4 if ops.loop.autocast_itemsize else wide.itemsize
    part = tape.op(wide.numel, wide.itemsize, [wide], cause="logits") if loop.shifted else tape.view(wide)
    if loop.in_place:
        loss = FakeTensor(
            tape.allocate(4, "logits"),
            1,
            4,
            tape.node(
                [],
                [part.storage],
                recompute=lambda tape, node, given: tape.accumulate_grad(part.grad_fn, tape.retain(part.storage)),
            ),
        )
    else:
        lifted = ops.cast(part, itemsize)
        soft = tape.op(wide.numel, itemsize, [lifted], saves_result=True, cause="logits")
        tape.delete(lifted)
        loss = tape.op(1, 4, [soft], cause="logits")
        tape.delete(soft)
    tape.delete(part)
    return loss
