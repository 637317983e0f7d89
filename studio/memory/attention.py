"""Attention on the tape: queries, keys and values, their rotation, and the kernel, as transformers' modeling files
write them.
"""

from __future__ import annotations

from studio.kernels import MATMUL_ATTENTION_MAX_TOKENS
from studio.memory.architecture import Layer, Linear
from studio.memory.autograd_tape import FakeTensor
from studio.memory.operations import Operations


def attention(ops: Operations, layer: Layer, given: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """Project, rotate, attend, project back."""
    tape = ops.tape
    query, key, value = project(ops, layer, given)
    query, key = rotate(ops, query, layer), rotate(ops, key, layer)
    mixed = attend(ops, query, key, value, mask)
    output = layer.linears_of("o_proj")
    if not output:
        return mixed
    result = ops.linear(mixed, output[0])
    tape.delete(mixed)
    return result


def project(ops: Operations, layer: Layer, given: FakeTensor) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Queries, keys and values, from three linears or a fused one (whose parts are views of it)."""
    tape, architecture = ops.tape, ops.architecture
    separate = [layer.linears_of(role) for role in ("q_proj", "k_proj", "v_proj")]
    if all(separate):
        query, key, value = (ops.linear(given, parts[0]) for parts in separate)
        return query, key, value
    fused = layer.linears_of("qkv_proj")
    rows = given.numel // architecture.hidden_size
    if fused:
        together = ops.linear(given, fused[0])
        query, key, value = (
            tape.view(together, rows * width)
            for width in (architecture.q_size, architecture.kv_size, architecture.kv_size)
        )
        tape.delete(together)
        return query, key, value
    widths = (architecture.q_size, architecture.kv_size, architecture.kv_size)
    query, key, value = (
        ops.linear(given, Linear("", architecture.hidden_size, width, False, "other")) for width in widths
    )
    return query, key, value


def rotate(ops: Operations, value: FakeTensor, layer: Layer) -> FakeTensor:
    """Queries' or keys' own norm where the model has one, then x·cos + rotate_half(x)·sin, of a part of each head
    where the family has it so.
    """
    tape, traits = ops.tape, ops.architecture.traits
    if layer.qk_norms:
        before, value = value, ops.norm(value, min(layer.qk_norms[0], value.numel), ops.trains_norms(layer))
        tape.delete(before)
    if ops.loop.fused_norms or not traits.rotary:
        return value
    turned = value.numel if traits.rotary == 1 else int(value.numel * traits.rotary)
    wide = ops.cast(value, 4) if traits.float32_norms else tape.view(value, turned)
    itemsize = max(wide.itemsize, ops.loop.hidden_itemsize)
    left = tape.op(turned, itemsize, [wide], reads=True)
    half = tape.op(turned // 2, wide.itemsize, [wide])
    swapped = tape.op(turned, wide.itemsize, [wide])
    tape.delete(half)
    right = tape.op(turned, itemsize, [swapped], reads=True)
    tape.delete(swapped)
    result = ops.add(left, right)
    tape.delete(left, right, wide)
    if traits.rotary < 1:
        part, result = result, tape.op(value.numel, max(itemsize, value.itemsize), [result, value])
        tape.delete(part)
    if traits.float32_norms:
        broad, result = result, ops.cast(result, value.itemsize)
        tape.delete(broad)
    tape.delete(value)
    return result


def attend(
    ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor, mask: FakeTensor | None
) -> FakeTensor:
    """softmax(q·kᵀ)·v by the loop's kernel. Lets go of query, key and value."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    itemsize = loop.autocast_itemsize or query.itemsize
    if loop.attention == "flash" and itemsize == 4:
        itemsize = 2
    prefix = ops.footprint.prefix
    if loop.cached_keys or prefix:
        key, value = lengthened(ops, key, prefix), lengthened(ops, value, prefix)
    expand = architecture.num_heads * architecture.head_dim != key.numel // (loop.batch * (loop.length + prefix)) and (
        loop.repeats_kv or eager(ops)
    )
    if expand:
        key, value = expanded(ops, key), expanded(ops, value)
    query, key, value = (narrowed(ops, item, itemsize) for item in (query, key, value))
    dropping = (
        ops.architecture.traits.attention_dropout and loop.device == "cpu"
    )  # no CPU kernel has dropout: torch forms the squares
    if eager(ops):
        mixed = scores(ops, query, key, value, mask)
    elif dropping:
        query, key, value = (narrowed(ops, item, 4) for item in (query, key, value))
        mixed = narrowed(ops, row_scores(ops, query, key, value), itemsize)
    elif loop.attention == "packed" and loop.device == "cpu" and loop.longest_row <= MATMUL_ATTENTION_MAX_TOKENS:
        mixed = row_scores(ops, query, key, value)
    else:
        mixed = kernel(ops, query, key, value, mask)
        if (
            loop.attention == "packed" and loop.repeats_kv
        ):  # no kernel for all rows: one after the other, put together and turned
            part, whole = mixed, ops.copy(mixed)
            mixed = ops.copy(whole)
            tape.delete(part, whole)
    tape.delete(query, key, value)
    return mixed


def eager(ops: Operations) -> bool:
    """Whether the squares of scores are formed one after the other: as ordered, or because the family has no other
    attention.
    """
    return ops.loop.attention == "eager" or ops.architecture.traits.eager


def lengthened(ops: Operations, value: FakeTensor, prefix: int) -> FakeTensor:
    """torch.cat of a prefix (or an empty cache) and the layer's own keys or values. Lets go of value."""
    result = ops.tape.op(
        value.numel + ops.loop.batch * prefix * ops.architecture.kv_size,
        value.itemsize,
        [value],
        weights=ops.loop.batch * prefix * ops.architecture.kv_size * value.itemsize if prefix else 0,
    )
    ops.tape.delete(value)
    return result


def expanded(ops: Operations, value: FakeTensor) -> FakeTensor:
    """repeat_kv: shared heads copied to all heads. Lets go of value."""
    groups = ops.architecture.q_size // ops.architecture.kv_size
    result = ops.tape.op(value.numel * groups, value.itemsize, [value])
    ops.tape.delete(value)
    return result


def narrowed(ops: Operations, value: FakeTensor, itemsize: int) -> FakeTensor:
    result = ops.cast(value, itemsize)
    ops.tape.delete(value)
    return result


def kernel(
    ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor, mask: FakeTensor | None
) -> FakeTensor:
    """SDPA's fused kernels keep q, k, v, the output and one float32 a head and row; FlashAttention 2 (arXiv
    2307.08691), algorithm 2.
    """
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    rows = loop.tokens * architecture.num_heads
    log_sum = FakeTensor(tape.allocate(rows * 4, "activations"), rows, 4, None)
    held = [query, key, value, log_sum]
    bias = None
    if (
        mask is not None and loop.attention == "sdpa"
    ):  # the boolean mask becomes an additive one of the computing type, in every layer anew
        bias = FakeTensor(tape.allocate(mask.numel * query.itemsize, "activations"), mask.numel, query.itemsize, None)
        held.append(bias)
    scratch = rows * 4 + (query.numel * 4 if loop.device == "cuda" else 0)  # row sums; dq gathered in float32
    result = tape.op(query.numel, query.itemsize, [query, key, value], held, saves_result=True, back_scratch=scratch)
    tape.delete(log_sum, bias)
    return result


def row_scores(ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor) -> FakeTensor:
    """worker/attention.py on a CPU: each row's scores by themselves, the softmax kept in the products' type."""
    tape, loop = ops.tape, ops.loop
    together = tape.op(query.numel, query.itemsize, [query])
    size = ops.architecture.num_heads * loop.longest_row * loop.tokens
    raw = tape.op(
        size,
        query.itemsize,
        [together, key],
        [together, key],
        scratch=size // loop.tokens * loop.longest_row * query.itemsize,
    )
    soft = ops.dropped(
        tape.op(size, query.itemsize, [raw], saves_result=True), ops.architecture.traits.attention_dropout
    )
    tape.delete(raw)
    part = tape.op(query.numel, query.itemsize, [soft, value], [soft, value])
    tape.delete(soft, together)
    whole = ops.copy(part)
    flat = ops.copy(whole)
    tape.delete(part, whole)
    return flat


def scores(
    ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor, mask: FakeTensor | None
) -> FakeTensor:
    """Eager attention: scores, scaled, bent, masked, softmax in float32, cast back, times v; all of them [batch, heads,
    length, keys].
    """
    tape, loop, traits = ops.tape, ops.loop, ops.architecture.traits
    size = loop.batch * ops.architecture.num_heads * loop.length * (loop.length + ops.footprint.prefix)
    scaled = tape.op(size, query.itemsize, [query, key], [query, key])
    for saved in ([False] if not traits.eager else []) + (
        [False, True, False] if traits.softcap else []
    ):  # scaling; division, tanh, multiplication
        before, scaled = scaled, tape.op(size, scaled.itemsize, [scaled], saves_result=saved)
        tape.delete(before)
    masked = tape.op(size, max(scaled.itemsize, mask.itemsize if mask else 0), [scaled], alias=True)
    tape.delete(scaled)
    wide = (
        tape.view(masked) if loop.fp16 and loop.device == "cuda" else ops.cast(masked, 4)
    )  # CUDA's softmax widens fp16 on its way, bf16 in a copy
    soft = tape.op(
        size, 4, [wide], saves_result=True, back_scratch=size * 4 if loop.device == "cuda" else 0
    )  # CUDA's kernel wants grad · soft
    tape.delete(wide, masked)
    narrow = ops.dropped(ops.cast(soft, query.itemsize), traits.attention_dropout)
    tape.delete(soft)
    result = tape.op(query.numel, query.itemsize, [narrow, value], [narrow, value])
    tape.delete(narrow)
    flat = ops.copy(result)
    tape.delete(result)
    return flat
