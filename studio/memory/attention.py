"""Attention on the tape: queries, keys, values, rotation and kernel, as transformers' modeling files write them."""

from __future__ import annotations

from studio.kernels import MATMUL_ATTENTION_MAX_TOKENS
from studio.memory.architecture import Layer, Linear
from studio.memory.autograd_tape import Back, FakeTensor
from studio.memory.linear import linear
from studio.memory.operations import Operations


def attention(ops: Operations, layer: Layer, hidden_states: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """Project, rotate, attend, project back."""
    query, key, value = project(ops, layer, hidden_states)
    query, key = rotate(ops, query, layer), rotate(ops, key, layer)
    mixed = attend(ops, query, key, value, mask)
    o_proj = layer.linears_of("o_proj")
    if not o_proj:
        return mixed
    result = linear(ops, mixed, o_proj[0])
    ops.tape.delete(mixed)
    return result


def project(ops: Operations, layer: Layer, hidden_states: FakeTensor) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Queries, keys and values, from three linears or a fused one (whose parts are views of it)."""
    tape, architecture = ops.tape, ops.architecture
    widths = (architecture.q_size, architecture.kv_size, architecture.kv_size)
    separate = [layer.linears_of(role) for role in ("q_proj", "k_proj", "v_proj")]
    fused = layer.linears_of("qkv_proj")
    if all(separate):
        query, key, value = (linear(ops, hidden_states, modules[0]) for modules in separate)
    elif fused:
        qkv = linear(ops, hidden_states, fused[0])
        tokens = hidden_states.numel // architecture.hidden_size
        query, key, value = (tape.view(qkv, tokens * width) for width in widths)
        tape.delete(qkv)
    else:
        modules = [Linear("", architecture.hidden_size, width, False, "other") for width in widths]
        query, key, value = (linear(ops, hidden_states, module) for module in modules)
    return query, key, value


def rotate(ops: Operations, value: FakeTensor, layer: Layer) -> FakeTensor:
    """The model's own norm of queries or keys, then x·cos + rotate_half(x)·sin of each head or a part of it."""
    tape, traits = ops.tape, ops.architecture.traits
    if layer.qk_norms:
        before, value = value, ops.norm(value, min(layer.qk_norms[0], value.numel), ops.trains_norms(layer))
        tape.delete(before)
    if ops.loop.fused_norms or not traits.rotary:
        return value
    numel = value.numel if traits.rotary == 1 else int(value.numel * traits.rotary)
    wide = ops.cast(value, 4) if traits.float32_norms else tape.view(value, numel)
    itemsize = max(wide.itemsize, ops.loop.hidden_itemsize)
    cos_part = tape.op(numel, itemsize, [wide], back=Back(reads=True))
    half = tape.op(numel // 2, wide.itemsize, [wide])
    rotated = tape.op(numel, wide.itemsize, [wide], deletes=[half])
    sin_part = tape.op(numel, itemsize, [rotated], deletes=[rotated], back=Back(reads=True))
    result = ops.add(cos_part, sin_part, [cos_part, sin_part, wide])
    if traits.rotary < 1:
        result = tape.op(value.numel, max(itemsize, value.itemsize), [result, value], deletes=[result])
    if traits.float32_norms:
        result = ops.convert(result, value.itemsize)
    tape.delete(value)
    return result


def attend(
    ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor, mask: FakeTensor | None
) -> FakeTensor:
    """softmax(q·kᵀ)·v by the loop's kernel. Deletes query, key and value."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    itemsize = loop.autocast_itemsize or query.itemsize
    if loop.attention == "flash" and itemsize == 4:
        itemsize = 2
    prefix = ops.footprint.prefix
    if loop.cached_keys or prefix:
        key, value = lengthened(ops, key, prefix), lengthened(ops, value, prefix)
    kv_size = key.numel // (loop.batch * (loop.length + prefix))
    if kv_size != architecture.q_size and (loop.repeats_kv or eager(ops)):
        key, value = expanded(ops, key), expanded(ops, value)
    query, key, value = (ops.convert(tensor, itemsize) for tensor in (query, key, value))
    if eager(ops):
        mixed = scores(ops, query, key, value, mask)
    elif architecture.traits.attention_dropout and loop.device == "cpu":  # no CPU kernel has dropout
        query, key, value = (ops.convert(tensor, 4) for tensor in (query, key, value))
        mixed = ops.convert(row_scores(ops, query, key, value), itemsize)
    elif loop.attention == "packed" and loop.device == "cpu" and loop.longest_row <= MATMUL_ATTENTION_MAX_TOKENS:
        mixed = row_scores(ops, query, key, value)
    else:
        mixed = kernel(ops, query, key, value, mask)
        if loop.attention == "packed" and loop.repeats_kv:  # no kernel for all rows: each by itself, then concatenated
            whole = ops.copy(mixed)
            mixed = ops.copy(whole, [mixed, whole])
    tape.delete(query, key, value)
    return mixed


def eager(ops: Operations) -> bool:
    """Whether the scores of all pairs of tokens are formed: as ordered, or for want of another attention."""
    return ops.loop.attention == "eager" or ops.architecture.traits.eager


def lengthened(ops: Operations, value: FakeTensor, prefix: int) -> FakeTensor:
    """torch.cat of a prefix (or an empty cache) and the layer's own keys or values. Deletes value."""
    numel = ops.loop.batch * prefix * ops.architecture.kv_size
    weights = numel * value.itemsize
    return ops.tape.op(value.numel + numel, value.itemsize, [value], deletes=[value], back=Back(weights=weights))


def expanded(ops: Operations, value: FakeTensor) -> FakeTensor:
    """repeat_kv: shared heads copied to all heads. Deletes value."""
    groups = ops.architecture.q_size // ops.architecture.kv_size
    return ops.tape.op(value.numel * groups, value.itemsize, [value], deletes=[value])


def kernel(
    ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor, mask: FakeTensor | None
) -> FakeTensor:
    """SDPA's fused kernels save q, k, v, the output and one float32 a head and row (arXiv 2307.08691, algorithm 2)."""
    tape, loop, architecture = ops.tape, ops.loop, ops.architecture
    log_sum = tape.new(loop.tokens * architecture.num_heads, 4)
    saves = [query, key, value, log_sum]
    bias = None
    # the boolean mask becomes an additive one of the computing type, in every layer anew
    if mask is not None and loop.attention == "sdpa":
        bias = tape.new(mask.numel, query.itemsize)
        saves.append(bias)
    scratch = log_sum.nbytes + (query.numel * 4 if loop.device == "cuda" else 0)  # row sums; dq gathered in float32
    return tape.op(
        query.numel,
        query.itemsize,
        [query, key, value],
        saves,
        deletes=[log_sum, bias],
        back=Back(saves_result=True, scratch=scratch),
    )


def row_scores(ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor) -> FakeTensor:
    """worker/attention.py on a CPU: each row's scores by themselves, the softmax kept in the products' type."""
    tape, loop = ops.tape, ops.loop
    scaled = tape.op(query.numel, query.itemsize, [query])
    size = ops.architecture.num_heads * loop.longest_row * loop.tokens
    scratch = ops.architecture.num_heads * loop.longest_row**2 * query.itemsize
    raw = tape.op(size, query.itemsize, [scaled, key], [scaled, key])
    tape.allocate_briefly(scratch, "workspace")
    softmax = tape.op(size, query.itemsize, [raw], back=Back(saves_result=True))
    softmax = ops.dropped(softmax, ops.architecture.traits.attention_dropout)
    tape.delete(raw)
    part = tape.op(query.numel, query.itemsize, [softmax, value], [softmax, value], deletes=[softmax, scaled])
    whole = ops.copy(part)
    return ops.copy(whole, [part, whole])


def scores(
    ops: Operations, query: FakeTensor, key: FakeTensor, value: FakeTensor, mask: FakeTensor | None
) -> FakeTensor:
    """Eager attention over [batch, heads, length, keys]: scale, soft cap, mask, float32 softmax, cast, times v."""
    tape, loop, traits = ops.tape, ops.loop, ops.architecture.traits
    size = loop.batch * ops.architecture.num_heads * loop.length * (loop.length + ops.footprint.prefix)
    scaled = tape.op(size, query.itemsize, [query, key], [query, key])
    saves_results = [] if traits.eager else [False]  # the scaling
    if traits.softcap:
        saves_results += [False, True, False]  # division, tanh, multiplication
    for saved in saves_results:
        scaled = tape.op(size, scaled.itemsize, [scaled], deletes=[scaled], back=Back(saves_result=saved))
    itemsize = max(scaled.itemsize, mask.itemsize if mask else 0)
    masked = tape.op(size, itemsize, [scaled], deletes=[scaled], back=Back(alias=True))
    # CUDA's softmax widens fp16 on its way, bf16 in a copy; its backward forms grad · softmax
    wide = tape.view(masked) if loop.fp16 and loop.device == "cuda" else ops.cast(masked, 4)
    scratch = size * 4 if loop.device == "cuda" else 0
    softmax = tape.op(size, 4, [wide], deletes=[wide, masked], back=Back(saves_result=True, scratch=scratch))
    narrow = ops.dropped(ops.cast(softmax, query.itemsize), traits.attention_dropout)
    tape.delete(softmax)
    result = tape.op(query.numel, query.itemsize, [narrow, value], [narrow, value], deletes=[narrow])
    return ops.copy(result, [result])
