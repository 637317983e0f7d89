"""One decoder layer, forwards, on the tape: its two halves and the feed-forward, as transformers' modeling files write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.memory.architecture import Layer, Linear
from studio.memory.attention import attention
from studio.memory.autograd_tape import Value
from studio.memory.operations import Walk


def decoder_layer(walk: Walk, layer: Layer, stream: Value, mask: Value | None) -> Value:
    """x + attention(norm(x)), then x + feed_forward(norm(x)); or both side by side. Leaves the name of `stream` to the caller."""
    if walk.architecture.traits.parallel:
        return side_by_side(walk, layer, stream, mask)
    outer = sum(1 for width in layer.norms if width == walk.architecture.hidden)
    middle = half(walk, layer, stream, lambda given: attention(walk, layer, given, mask), min(outer, 1) + (outer >= 4))
    result = half(walk, layer, middle, lambda given: feed_forward(walk, layer, given), (outer >= 2) + (outer >= 4))
    walk.tape.drop(middle)
    return result


def half(walk: Walk, layer: Layer, stream: Value, inside: Callable[[Value], Value], norms: int) -> Value:
    """stream + inside(norm(stream)). norms: 2 with one behind as well (Gemma 2 and 3); one stands behind alone where the family has it so."""
    tape, traits, moves = walk.tape, walk.architecture.traits, walk.norms_move(layer)
    behind = norms == 2 or norms == 1 and traits.behind
    given = walk.norm(stream, walk.architecture.hidden, moves) if norms and not traits.behind else tape.view(stream)
    mixed = inside(given)
    tape.drop(given)
    if behind:
        before, mixed = mixed, walk.norm(mixed, walk.architecture.hidden, moves)
        tape.drop(before)
    if traits.multiplied:
        before, mixed = mixed, tape.op(mixed.size, mixed.each, [mixed])
        tape.drop(before)
    mixed = walk.dropped(mixed, traits.dropout)
    result = walk.add(stream, mixed)
    tape.drop(mixed)
    return result


def side_by_side(walk: Walk, layer: Layer, stream: Value, mask: Value | None) -> Value:
    """x + attention(norm(x)) + feed_forward(norm(x)), with one norm for both or one each."""
    tape, traits, hidden, moves = walk.tape, walk.architecture.traits, walk.architecture.hidden, walk.norms_move(layer)
    given = walk.norm(stream, hidden, moves)
    mixed = walk.dropped(attention(walk, layer, given, mask), traits.dropout)
    if not traits.shared:
        tape.drop(given)
        given = walk.norm(stream, hidden, moves)
    fed = walk.dropped(feed_forward(walk, layer, given), traits.dropout)
    tape.drop(given)
    both = walk.add(mixed, fed)
    tape.drop(mixed, fed)
    result = walk.add(both, stream)
    tape.drop(both)
    return result


def feed_forward(walk: Walk, layer: Layer, given: Value) -> Value:
    """down(act(gate(x)) · up(x)), or down(act(up(x))); of experts with what all tokens share beside them."""
    if not layer.experts:
        return dense(walk, layer, given)
    chosen = experts(walk, layer, given)
    if not layer.part("down"):
        return chosen
    shared = dense(walk, layer, given)
    weighted = walk.tape.op(shared.size, shared.each, [shared], [shared])
    result = walk.add(chosen, weighted)
    walk.tape.drop(chosen, shared, weighted)
    return result


def dense(walk: Walk, layer: Layer, given: Value) -> Value:
    tape, gate, up, down = walk.tape, layer.part("gate"), layer.part("up"), layer.part("down")
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


def gated(walk: Walk, left: Value, right: Value | Callable[[], Value] | None) -> Value:
    """act(left) · right; the product keeps both factors. Lets go of left and right."""
    tape = walk.tape
    active = activated(walk, left)
    if right is None:
        return active
    other = right() if callable(right) else right
    product = tape.op(other.size, other.each, [active, other], [active, other])
    tape.drop(active, other)
    return product


def activated(walk: Walk, value: Value) -> Value:
    """act(value): one kernel that keeps its input (ReLU: its result); some are written out in transformers' activations.py. Lets go of value."""
    tape, name = walk.tape, walk.architecture.traits.activation
    if name in ("gelu_new", "gelu_fast"):
        result = written_gelu(walk, value, name == "gelu_fast")
    elif name == "quick_gelu":
        steep = tape.op(value.size, value.each, [value])
        gate = tape.op(value.size, value.each, [steep], saves_result=True)
        tape.drop(steep)
        result = tape.op(value.size, value.each, [value, gate], [value, gate])
        tape.drop(gate)
    elif name.startswith("relu"):
        result = tape.op(value.size, value.each, [value], saves_result=True)
    else:
        result = tape.op(value.size, value.each, [value], [value])
    tape.drop(value)
    return result


def written_gelu(walk: Walk, value: Value, fast: bool) -> Value:
    """0.5·x · (1 + tanh(√(2/π)·(x + 0.044715·x³))), each operation by itself; CUDA's autocast takes the power in float32, and all that follows."""
    tape, size = walk.tape, value.size

    def then(before: Value, saves: tuple[Value, ...] = (), **more: Any) -> Value:
        made = tape.op(size, before.each, [before], saves, **more)
        tape.drop(before)
        return made

    low = tape.op(size, value.each, [value])  # 0.5·x
    if fast:  # x·√(2/π) · (1 + 0.044715·x·x)
        bent = tape.op(size, value.each, [value])
        small = tape.op(size, value.each, [value])
        square = tape.op(size, value.each, [small, value], [small, value])
        tape.drop(small)
        factor = then(square)
        inner = tape.op(size, value.each, [bent, factor], [bent, factor])
        tape.drop(bent, factor)
    else:
        wide = walk.cast(value, 4) if walk.loop.autocast and walk.loop.device == "cuda" else tape.view(value)
        cube = then(wide, (wide,))
        inner = then(walk_sum(walk, then(cube), value))
    high = then(then(inner, saves_result=True))
    result = tape.op(size, max(low.each, high.each), [low, high], [low, high])
    tape.drop(low, high)
    return result


def walk_sum(walk: Walk, left: Value, right: Value) -> Value:
    """left + right; lets go of left."""
    made = walk.add(left, right)
    walk.tape.drop(left)
    return made


def experts(walk: Walk, layer: Layer, given: Value) -> Value:
    """A router, then the chosen experts on the rows sent to them, summed back."""
    tape, architecture = walk.tape, walk.architecture
    rows = given.size // architecture.hidden * max(1, architecture.active)
    sent = tape.op(rows * architecture.hidden, given.each, [given])
    left = walk.base_linear(sent, Linear("", architecture.hidden, layer.width, False, "gate"))
    right = walk.base_linear(sent, Linear("", architecture.hidden, layer.width, False, "up"))
    tape.drop(sent)
    product = gated(walk, left, right)
    down = walk.base_linear(product, Linear("", layer.width, architecture.hidden, False, "down"))
    tape.drop(product)
    weighted = tape.op(rows * architecture.hidden, down.each, [down], [down])
    tape.drop(down)
    result = tape.op(given.size, weighted.each, [weighted])
    tape.drop(weighted)
    return result
