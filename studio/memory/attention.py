"""Attention on the tape: queries, keys and values, their rotation, and the kernel, as transformers' modeling files write them."""

from __future__ import annotations

from studio.kernels import MATMUL_ATTENTION_MAX_TOKENS
from studio.memory.architecture import Layer, Linear
from studio.memory.autograd_tape import Value
from studio.memory.operations import Walk


def attention(walk: Walk, layer: Layer, given: Value, mask: Value | None) -> Value:
    """Project, rotate, attend, project back."""
    tape = walk.tape
    query, key, value = project(walk, layer, given)
    query, key = rotate(walk, query, layer), rotate(walk, key, layer)
    mixed = attend(walk, query, key, value, mask)
    output = layer.part("output")
    if not output:
        return mixed
    result = walk.linear(mixed, output[0])
    tape.drop(mixed)
    return result


def project(walk: Walk, layer: Layer, given: Value) -> tuple[Value, Value, Value]:
    """Queries, keys and values, from three linears or a fused one (whose parts are views of it)."""
    tape, architecture = walk.tape, walk.architecture
    separate = [layer.part(part) for part in ("query", "key", "value")]
    if all(separate):
        query, key, value = (walk.linear(given, parts[0]) for parts in separate)
        return query, key, value
    fused = layer.part("fused")
    rows = given.size // architecture.hidden
    if fused:
        together = walk.linear(given, fused[0])
        query, key, value = (
            tape.view(together, rows * width) for width in (architecture.query, architecture.keys, architecture.keys)
        )
        tape.drop(together)
        return query, key, value
    widths = (architecture.query, architecture.keys, architecture.keys)
    query, key, value = (walk.linear(given, Linear("", architecture.hidden, width, False, "other")) for width in widths)
    return query, key, value


def rotate(walk: Walk, value: Value, layer: Layer) -> Value:
    """Queries' or keys' own norm where the model has one, then x·cos + rotate_half(x)·sin, of a part of each head where the family has it so."""
    tape, traits = walk.tape, walk.architecture.traits
    if layer.inner:
        before, value = value, walk.norm(value, min(layer.inner[0], value.size), walk.norms_move(layer))
        tape.drop(before)
    if walk.loop.fused_norms or not traits.rotary:
        return value
    turned = value.size if traits.rotary == 1 else int(value.size * traits.rotary)
    wide = walk.cast(value, 4) if traits.widened else tape.view(value, turned)
    each = max(wide.each, walk.loop.stream)
    left = tape.op(turned, each, [wide], reads=True)
    half = tape.op(turned // 2, wide.each, [wide])
    swapped = tape.op(turned, wide.each, [wide])
    tape.drop(half)
    right = tape.op(turned, each, [swapped], reads=True)
    tape.drop(swapped)
    result = walk.add(left, right)
    tape.drop(left, right, wide)
    if traits.rotary < 1:
        part, result = result, tape.op(value.size, max(each, value.each), [result, value])
        tape.drop(part)
    if traits.widened:
        broad, result = result, walk.cast(result, value.each)
        tape.drop(broad)
    tape.drop(value)
    return result


def attend(walk: Walk, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """softmax(q·kᵀ)·v by the loop's kernel. Lets go of query, key and value."""
    tape, loop, architecture = walk.tape, walk.loop, walk.architecture
    each = loop.autocast or query.each
    if loop.attention == "flash" and each == 4:
        each = 2
    prefix = walk.footprint.prefix
    if loop.cached_keys or prefix:
        key, value = lengthened(walk, key, prefix), lengthened(walk, value, prefix)
    expand = architecture.heads * architecture.head_dim != key.size // (loop.batch * (loop.length + prefix)) and (
        loop.expanded or eager(walk)
    )
    if expand:
        key, value = expanded(walk, key), expanded(walk, value)
    query, key, value = (narrowed(walk, item, each) for item in (query, key, value))
    dropping = (
        walk.architecture.traits.attention_dropout and loop.device == "cpu"
    )  # no CPU kernel has dropout: torch forms the squares
    if eager(walk):
        mixed = scores(walk, query, key, value, mask)
    elif dropping:
        query, key, value = (narrowed(walk, item, 4) for item in (query, key, value))
        mixed = narrowed(walk, row_scores(walk, query, key, value), each)
    elif loop.attention == "packed" and loop.device == "cpu" and loop.row <= MATMUL_ATTENTION_MAX_TOKENS:
        mixed = row_scores(walk, query, key, value)
    else:
        mixed = kernel(walk, query, key, value, mask)
        if (
            loop.attention == "packed" and loop.expanded
        ):  # no kernel for all rows: one after the other, put together and turned
            part, whole = mixed, walk.copy(mixed)
            mixed = walk.copy(whole)
            tape.drop(part, whole)
    tape.drop(query, key, value)
    return mixed


def eager(walk: Walk) -> bool:
    """Whether the squares of scores are formed one after the other: as ordered, or because the family has no other attention."""
    return walk.loop.attention == "eager" or walk.architecture.traits.eager


def lengthened(walk: Walk, value: Value, prefix: int) -> Value:
    """torch.cat of a prefix (or an empty cache) and the layer's own keys or values. Lets go of value."""
    result = walk.tape.op(
        value.size + walk.loop.batch * prefix * walk.architecture.keys,
        value.each,
        [value],
        weights=walk.loop.batch * prefix * walk.architecture.keys * value.each if prefix else 0,
    )
    walk.tape.drop(value)
    return result


def expanded(walk: Walk, value: Value) -> Value:
    """repeat_kv: shared heads copied to all heads. Lets go of value."""
    groups = walk.architecture.query // walk.architecture.keys
    result = walk.tape.op(value.size * groups, value.each, [value])
    walk.tape.drop(value)
    return result


def narrowed(walk: Walk, value: Value, each: int) -> Value:
    result = walk.cast(value, each)
    walk.tape.drop(value)
    return result


def kernel(walk: Walk, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """SDPA's fused kernels keep q, k, v, the output and one float32 a head and row; FlashAttention 2 (arXiv 2307.08691), algorithm 2."""
    tape, loop, architecture = walk.tape, walk.loop, walk.architecture
    rows = loop.tokens * architecture.heads
    log_sum = Value(tape.take(rows * 4, "activations"), rows, 4, None)
    held = [query, key, value, log_sum]
    bias = None
    if (
        mask is not None and loop.attention == "sdpa"
    ):  # the boolean mask becomes an additive one of the computing type, in every layer anew
        bias = Value(tape.take(mask.size * query.each, "activations"), mask.size, query.each, None)
        held.append(bias)
    scratch = rows * 4 + (query.size * 4 if loop.device == "cuda" else 0)  # row sums; dq gathered in float32
    result = tape.op(query.size, query.each, [query, key, value], held, saves_result=True, back_scratch=scratch)
    tape.drop(log_sum, bias)
    return result


def row_scores(walk: Walk, query: Value, key: Value, value: Value) -> Value:
    """worker/attention.py on a CPU: each row's scores by themselves, the softmax kept in the products' type."""
    tape, loop = walk.tape, walk.loop
    together = tape.op(query.size, query.each, [query])
    size = walk.architecture.heads * loop.row * loop.tokens
    raw = tape.op(
        size, query.each, [together, key], [together, key], scratch=size // loop.tokens * loop.row * query.each
    )
    soft = walk.dropped(tape.op(size, query.each, [raw], saves_result=True), walk.architecture.traits.attention_dropout)
    tape.drop(raw)
    part = tape.op(query.size, query.each, [soft, value], [soft, value])
    tape.drop(soft, together)
    whole = walk.copy(part)
    flat = walk.copy(whole)
    tape.drop(part, whole)
    return flat


def scores(walk: Walk, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """Eager attention: scores, scaled, bent, masked, softmax in float32, cast back, times v; all of them [batch, heads, length, keys]."""
    tape, loop, traits = walk.tape, walk.loop, walk.architecture.traits
    size = loop.batch * walk.architecture.heads * loop.length * (loop.length + walk.footprint.prefix)
    scaled = tape.op(size, query.each, [query, key], [query, key])
    for saved in ([False] if not traits.eager else []) + (
        [False, True, False] if traits.capped else []
    ):  # scaling; division, tanh, multiplication
        before, scaled = scaled, tape.op(size, scaled.each, [scaled], saves_result=saved)
        tape.drop(before)
    masked = tape.op(size, max(scaled.each, mask.each if mask else 0), [scaled], alias=True)
    tape.drop(scaled)
    wide = (
        tape.view(masked) if loop.half and loop.device == "cuda" else walk.cast(masked, 4)
    )  # CUDA's softmax widens fp16 on its way, bf16 in a copy
    soft = tape.op(
        size, 4, [wide], saves_result=True, back_scratch=size * 4 if loop.device == "cuda" else 0
    )  # CUDA's kernel wants grad · soft
    tape.drop(wide, masked)
    narrow = walk.dropped(walk.cast(soft, query.each), traits.attention_dropout)
    tape.drop(soft)
    result = tape.op(query.size, query.each, [narrow, value], [narrow, value])
    tape.drop(narrow)
    flat = walk.copy(result)
    tape.drop(result)
    return flat
