"""Head and loss on the tape: logits of a few positions at a time, or all of them at once."""

from __future__ import annotations

from studio.kernels import HEAD_GRAD_POSITIONS, logit_chunk_bytes
from studio.memory.autograd_tape import Back, FakeTensor
from studio.memory.operations import Operations


def head_loss(ops: Operations, final: FakeTensor) -> FakeTensor:
    """The loss of a batch from its final hidden states [tokens, hidden]."""
    return {"chunked": chunked, "fused": fused, "full": full}[ops.loop.head](ops, final)


def chunked(ops: Operations, final: FakeTensor) -> FakeTensor:
    """worker/head.py: hidden states of labelled positions, some logits at a time, gradient formed in forward."""
    tape = ops.tape
    loop = ops.loop
    vocab_size = ops.architecture.vocab_size
    trained = ops.trains_head
    hidden_size, head_numel = ops.architecture.hidden_size, ops.architecture.embedding_numel
    labels = loop.tokens if loop.labels is None else loop.labels
    itemsize, head_itemsize = loop.compute_itemsize, ops.footprint.trained_itemsize if trained else loop.weight_itemsize
    flat = _flat(ops, final)
    labelled = tape.op(labels * hidden_size, final.itemsize, [flat])
    temporary = [flat, ops.cast(labelled, itemsize)]
    if head_itemsize != itemsize or ops.footprint.rows:
        temporary.append(tape.new(head_numel, itemsize, "logits"))
    hidden_grad = tape.new(labels * hidden_size, itemsize, "logits")
    chunk = max(1, min(labels, (loop.logit_chunk or logit_chunk_bytes(loop.device)) // (4 * vocab_size)))
    block = max(chunk, min(labels, HEAD_GRAD_POSITIONS)) if trained else chunk
    several = labels > block  # the head's gradient is then summed in float32; else it exists after the softmax only
    head_grad = tape.new(head_numel, 4, "logits") if trained and several else None
    temporary += [tape.new(block * vocab_size, itemsize, "logits"), tape.new(chunk * vocab_size, 4, "logits")]
    widens = itemsize == 2 and not (loop.fp16 and loop.device == "cuda")  # torch's softmax widens bf16 into a copy
    tape.allocate_briefly(chunk * vocab_size * 4 * (ops.architecture.traits.logit_buffers or int(widens)), "logits")
    if trained and several:
        tape.allocate_briefly(head_numel * itemsize, "logits")
    elif trained:
        head_grad = tape.new(head_numel, itemsize, "logits")
    narrow = trained and head_itemsize == 2  # the table's gradient is formed in float32 all the same
    loss = tape.op(
        1,
        4,
        [labelled],
        [hidden_grad] + ([head_grad] if head_grad else []),
        back=Back(weights=head_numel * head_itemsize if trained else 0, scratch=head_numel * 4 if narrow else 0),
    )
    tape.delete(labelled, hidden_grad, head_grad, *temporary)
    tape.allocate_briefly(loop.batch * vocab_size * itemsize, "logits")  # the head's one position a row
    return loss


def _flat(ops: Operations, final: FakeTensor) -> FakeTensor:
    """hidden[:, :-1].flatten(0, 1): a copy where there are several rows, else a view; its gradient is a new tensor."""
    if ops.loop.batch > 1:
        return ops.tape.op(final.numel, final.itemsize, [final])
    flat = ops.tape.view(final)
    if final.grad_fn is not None:
        flat.grad_fn = ops.tape.node([(final.grad_fn, final.nbytes)], [])
    return flat


def fused(ops: Operations, final: FakeTensor) -> FakeTensor:
    """Liger's fused linear cross entropy (arXiv 2410.10989, section 3.2): T·h/V rows a chunk, hidden gradient kept."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    itemsize = loop.compute_itemsize
    shifted = tape.op(final.numel, itemsize, [final])
    chunks = max(1, -(-architecture.vocab_size // architecture.hidden_size))
    rows = 1 << max(0, -(-loop.tokens // chunks) - 1).bit_length()  # the next power of two
    hidden_grad = tape.new(final.numel, itemsize, "logits")
    tape.allocate_briefly(rows * architecture.vocab_size * (itemsize + 4), "logits")
    weights = architecture.embedding_numel * ops.footprint.trained_itemsize if ops.trains_head else 0
    return tape.op(1, 4, [shifted], [hidden_grad], deletes=[shifted, hidden_grad], back=Back(weights=weights))


def full(ops: Operations, final: FakeTensor) -> FakeTensor:
    """All logits, a float32 copy, its log-softmax kept, two gradients of that size (transformers' ForCausalLMLoss)."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    itemsize = loop.compute_itemsize
    if not loop.autocast_itemsize and ops.trains_head:
        itemsize = ops.footprint.trained_itemsize
    elif not loop.autocast_itemsize and loop.kbit:
        itemsize = 4
    hidden_states = ops.cast(final, itemsize)
    logits = tape.op(
        loop.tokens * architecture.vocab_size,
        itemsize,
        [hidden_states],
        [hidden_states] if ops.trains_head else [],
        cause="logits",
        back=Back(weights=architecture.embedding_numel * ops.footprint.trained_itemsize if ops.trains_head else 0),
    )
    tape.delete(hidden_states)
    if logits.itemsize == 4 or loop.loss_in_logits_dtype:
        wide = tape.view(logits)
    else:
        wide = tape.op(logits.numel, 4, [logits], cause="logits")
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


def _cross_entropy(ops: Operations, wide: FakeTensor) -> FakeTensor:
    """Cross entropy of float32 logits (autocast widens a copy of others). in_place: the gradient overwrites them."""
    tape, loop, itemsize = ops.tape, ops.loop, 4 if ops.loop.autocast_itemsize else wide.itemsize
    part = tape.op(wide.numel, wide.itemsize, [wide], cause="logits") if loop.shifted else tape.view(wide)
    if loop.in_place:
        loss = tape.new(1, 4, "logits")
        loss.grad_fn = tape.node(
            [],
            [part.storage],
            recompute=lambda tape, node, grad: tape.accumulate_grad(part.grad_fn, tape.retain(part.storage)),
        )
    else:
        widened = ops.cast(part, itemsize)
        softmax = tape.op(
            wide.numel, itemsize, [widened], cause="logits", deletes=[widened], back=Back(saves_result=True)
        )
        loss = tape.op(1, 4, [softmax], cause="logits", deletes=[softmax])
    tape.delete(part)
    return loss
