"""One decoder layer, forwards, on the tape: attention and feed-forward as transformers' modeling files write them."""

from __future__ import annotations

from studio.memory.anatomy import Layer, Linear
from studio.memory.tape import Value
from studio.memory.walk import Walk

SHORT = 1024  # tokens up to which worker/attention.py forms a row's square of scores on a CPU


def decoder_layer(walk: Walk, layer: Layer, stream: Value, mask: Value | None) -> Value:
    """x + attention(norm(x)), then x + feed_forward(norm(x)). Leaves the name of `stream` to the caller."""
    tape, hidden = walk.tape, walk.anatomy.hidden
    outer = sum(1 for width in layer.norms if width == hidden)
    moves = norms_move(walk, layer)
    given = walk.norm(stream, hidden, moves) if outer else tape.view(stream)
    mixed = attention(walk, layer, given, mask)
    tape.drop(given)
    if outer >= 4:  # Gemma 2 and 3: a norm behind each half as well
        before, mixed = mixed, walk.norm(mixed, hidden, moves)
        tape.drop(before)
    middle = walk.add(stream, mixed)
    tape.drop(mixed)
    given = walk.norm(middle, hidden, moves) if outer >= 2 else tape.view(middle)
    fed = feed_forward(walk, layer, given)
    tape.drop(given)
    if outer >= 4:
        before, fed = fed, walk.norm(fed, hidden, moves)
        tape.drop(before)
    result = walk.add(middle, fed)
    tape.drop(fed, middle)
    return result


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
    tape, anatomy = walk.tape, walk.anatomy
    separate = [layer.part(part) for part in ("query", "key", "value")]
    if all(separate):
        return tuple(walk.linear(given, parts[0]) for parts in separate)
    fused = layer.part("fused")
    rows = given.size // anatomy.hidden
    if fused:
        together = walk.linear(given, fused[0])
        parts = [tape.view(together, rows * width) for width in (anatomy.query, anatomy.keys, anatomy.keys)]
        tape.drop(together)
        return tuple(parts)
    widths = (anatomy.query, anatomy.keys, anatomy.keys)
    return tuple(walk.linear(given, Linear("", anatomy.hidden, width, False, "other")) for width in widths)


def norms_move(walk: Walk, layer: Layer) -> bool:
    """Whether a layer's norms are trained."""
    return any(name.startswith(layer.prefix) and "norm" in name or ".ln_" in name for name in walk.footprint.weights) if walk.footprint.weights else False


def rotate(walk: Walk, value: Value, layer: Layer) -> Value:
    """Queries' or keys' own norm where the model has one, then x·cos + rotate_half(x)·sin. Lets go of value."""
    tape, each = walk.tape, max(value.each, walk.stack.stream)
    if layer.inner:
        before, value = value, walk.norm(value, min(layer.inner[0], value.size), norms_move(walk, layer))
        tape.drop(before)
    if walk.stack.fused_norms:
        return value
    left = tape.op(value.size, each, [value])
    half = tape.op(value.size // 2, value.each, [value])
    turned = tape.op(value.size, value.each, [value])
    tape.drop(half)
    right = tape.op(value.size, each, [turned])
    tape.drop(turned)
    result = walk.add(left, right)
    tape.drop(left, right, value)
    return result


def attend(walk: Walk, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """softmax(q·kᵀ)·v by the stack's kernel. Lets go of query, key and value."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    each = stack.autocast or query.each
    if stack.attention == "flash" and each == 4:
        each = 2
    prefix = walk.footprint.prefix
    if stack.cached_keys or prefix:
        key, value = lengthened(walk, key, prefix), lengthened(walk, value, prefix)
    expand = anatomy.heads * anatomy.head_dim != key.size // (stack.batch * (stack.length + prefix)) and (stack.expanded or stack.attention == "eager")
    if expand:
        key, value = expanded(walk, key), expanded(walk, value)
    query, key, value = (narrowed(walk, item, each) for item in (query, key, value))
    if stack.attention == "laid" and stack.device == "cpu" and stack.row <= SHORT:
        mixed = row_scores(walk, query, key, value)
    else:
        mixed = (scores if stack.attention == "eager" else kernel)(walk, query, key, value, mask)
    tape.drop(query, key, value)
    return mixed


def lengthened(walk: Walk, value: Value, prefix: int) -> Value:
    """torch.cat of a prefix (or an empty cache) and the layer's own keys or values. Lets go of value."""
    result = walk.tape.op(value.size + walk.stack.batch * prefix * walk.anatomy.keys, value.each, [value],
                          weights=walk.stack.batch * prefix * walk.anatomy.keys * value.each if prefix else 0)
    walk.tape.drop(value)
    return result


def expanded(walk: Walk, value: Value) -> Value:
    """repeat_kv: shared heads copied to all heads. Lets go of value."""
    groups = walk.anatomy.query // walk.anatomy.keys
    result = walk.tape.op(value.size * groups, value.each, [value])
    walk.tape.drop(value)
    return result


def narrowed(walk: Walk, value: Value, each: int) -> Value:
    result = walk.cast(value, each)
    walk.tape.drop(value)
    return result


def kernel(walk: Walk, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """SDPA's fused kernels keep q, k, v, the output and one float32 a head and row; FlashAttention 2 (arXiv 2307.08691), algorithm 2."""
    tape, stack, anatomy = walk.tape, walk.stack, walk.anatomy
    rows = stack.tokens * anatomy.heads
    log_sum = Value(tape.take(rows * 4, "activations"), rows, 4, None)
    held = [query, key, value, log_sum]
    bias = None
    if mask is not None and stack.attention == "sdpa":  # the boolean mask becomes an additive one of the computing type, in every layer anew
        bias = Value(tape.take(mask.size * query.each, "activations"), mask.size, query.each, None)
        held.append(bias)
    scratch = rows * 4 + (query.size * 4 if stack.device == "cuda" else 0)  # row sums; dq gathered in float32
    result = tape.op(query.size, query.each, [query, key, value], held, saves_result=True, back_scratch=scratch)
    tape.drop(log_sum, bias)
    return result


def row_scores(walk: Walk, query: Value, key: Value, value: Value) -> Value:
    """worker/attention.py on a CPU: each row's scores by themselves, the softmax kept in the products' type."""
    tape, stack = walk.tape, walk.stack
    together = tape.op(query.size, query.each, [query])
    size = walk.anatomy.heads * stack.row * stack.length
    raw = tape.op(size, query.each, [together, key], [together, key], scratch=size // stack.length * stack.row * query.each)
    soft = tape.op(size, query.each, [raw], saves_result=True)
    tape.drop(raw)
    part = tape.op(query.size, query.each, [soft, value], [soft, value])
    tape.drop(soft, together)
    whole = walk.copy(part)
    flat = walk.copy(whole)
    tape.drop(part, whole)
    return flat


def scores(walk: Walk, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """Eager attention: scores, scaled, masked, softmax in float32, cast back, times v; all of them [batch, heads, length, keys]."""
    tape, stack = walk.tape, walk.stack
    size = stack.batch * walk.anatomy.heads * stack.length * (stack.length + walk.footprint.prefix)
    raw = tape.op(size, query.each, [query, key], [query, key])
    scaled = tape.op(size, raw.each, [raw])
    tape.drop(raw)
    masked = tape.op(size, scaled.each, [scaled], alias=True)
    tape.drop(scaled)
    wide = walk.cast(masked, 4) if masked.each != 4 and stack.device == "cpu" else tape.view(masked)
    soft = tape.op(size, 4, [wide], saves_result=True, back_scratch=size * 4)
    tape.drop(wide, masked)
    narrow = walk.cast(soft, query.each)
    tape.drop(soft)
    result = tape.op(query.size, query.each, [narrow, value], [narrow, value])
    tape.drop(narrow)
    flat = walk.copy(result)
    tape.drop(result)
    return flat


def feed_forward(walk: Walk, layer: Layer, given: Value) -> Value:
    """down(act(gate(x)) · up(x)), or down(act(up(x))); for experts with as many rows as tokens are sent to them."""
    tape, gate, up, down = walk.tape, layer.part("gate"), layer.part("up"), layer.part("down")
    if layer.experts:
        return experts(walk, layer, given)
    together = layer.part("gate_up")
    if together:
        both = walk.linear(given, together[0])
        left, right = tape.view(both, both.size // 2), tape.view(both, both.size // 2)
        tape.drop(both)
    elif gate and up:
        left, right = walk.linear(given, gate[0]), None
    else:
        left, right = (walk.linear(given, up[0]) if up else tape.view(given)), None
    product = gated(walk, left, right if together else (lambda: walk.linear(given, up[0])) if gate and up else None)
    result = walk.linear(product, down[0]) if down else tape.view(product, given.size)
    tape.drop(product)
    return result


def gated(walk: Walk, left: Value, right: Value | object | None) -> Value:
    """act(left) · right; act keeps its input, the product keeps both factors. Lets go of left and right."""
    tape = walk.tape
    active = tape.op(left.size, left.each, [left], [left])
    tape.drop(left)
    if right is None:
        return active
    other = right() if callable(right) else right
    product = tape.op(other.size, other.each, [active, other], [active, other])
    tape.drop(active, other)
    return product


def experts(walk: Walk, layer: Layer, given: Value) -> Value:
    """A router, then the chosen experts on the rows sent to them, summed back."""
    tape, anatomy = walk.tape, walk.anatomy
    rows = given.size // anatomy.hidden * max(1, anatomy.active)
    sent = tape.op(rows * anatomy.hidden, given.each, [given])
    left = walk.base_linear(sent, Linear("", anatomy.hidden, layer.width, False, "gate"))
    right = walk.base_linear(sent, Linear("", anatomy.hidden, layer.width, False, "up"))
    tape.drop(sent)
    product = gated(walk, left, right)
    down = walk.base_linear(product, Linear("", layer.width, anatomy.hidden, False, "down"))
    tape.drop(product)
    weighted = tape.op(rows * anatomy.hidden, down.each, [down], [down])
    tape.drop(down)
    result = tape.op(given.size, weighted.each, [weighted])
    tape.drop(weighted)
    return result
