"""One decoder layer, forwards, on the tape: its two halves and the feed-forward, as transformers' modeling files write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.memory.architecture import Layer, Linear
from studio.memory.attention import attention
from studio.memory.autograd_tape import FakeTensor
from studio.memory.operations import Operations


def decoder_layer(ops: Operations, layer: Layer, stream: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """x + attention(norm(x)), then x + feed_forward(norm(x)); or both side by side. Leaves the name of `stream` to the caller."""
    if ops.architecture.traits.parallel:
        return side_by_side(ops, layer, stream, mask)
    outer = sum(1 for width in layer.norms if width == ops.architecture.hidden_size)
    middle = half(ops, layer, stream, lambda given: attention(ops, layer, given, mask), min(outer, 1) + (outer >= 4))
    result = half(ops, layer, middle, lambda given: feed_forward(ops, layer, given), (outer >= 2) + (outer >= 4))
    ops.tape.delete(middle)
    return result


def half(
    ops: Operations, layer: Layer, stream: FakeTensor, inside: Callable[[FakeTensor], FakeTensor], norms: int
) -> FakeTensor:
    """stream + inside(norm(stream)). norms: 2 with one behind as well (Gemma 2 and 3); one stands behind alone where the family has it so."""
    tape, traits, moves = ops.tape, ops.architecture.traits, ops.norms_move(layer)
    behind = norms == 2 or norms == 1 and traits.post_norm
    given = (
        ops.norm(stream, ops.architecture.hidden_size, moves) if norms and not traits.post_norm else tape.view(stream)
    )
    mixed = inside(given)
    tape.delete(given)
    if behind:
        before, mixed = mixed, ops.norm(mixed, ops.architecture.hidden_size, moves)
        tape.delete(before)
    if traits.scaled_residual:
        before, mixed = mixed, tape.op(mixed.numel, mixed.itemsize, [mixed])
        tape.delete(before)
    mixed = ops.dropped(mixed, traits.dropout)
    result = ops.add(stream, mixed)
    tape.delete(mixed)
    return result


def side_by_side(ops: Operations, layer: Layer, stream: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """x + attention(norm(x)) + feed_forward(norm(x)), with one norm for both or one each."""
    tape, traits, hidden, moves = ops.tape, ops.architecture.traits, ops.architecture.hidden_size, ops.norms_move(layer)
    given = ops.norm(stream, hidden, moves)
    mixed = ops.dropped(attention(ops, layer, given, mask), traits.dropout)
    if not traits.shared_norm:
        tape.delete(given)
        given = ops.norm(stream, hidden, moves)
    fed = ops.dropped(feed_forward(ops, layer, given), traits.dropout)
    tape.delete(given)
    both = ops.add(mixed, fed)
    tape.delete(mixed, fed)
    result = ops.add(both, stream)
    tape.delete(both)
    return result


def feed_forward(ops: Operations, layer: Layer, given: FakeTensor) -> FakeTensor:
    """down(act(gate(x)) · up(x)), or down(act(up(x))); of experts with what all tokens share beside them."""
    if not layer.num_experts:
        return dense(ops, layer, given)
    chosen = experts(ops, layer, given)
    if not layer.linears_of("down_proj"):
        return chosen
    shared = dense(ops, layer, given)
    weighted = ops.tape.op(shared.numel, shared.itemsize, [shared], [shared])
    result = ops.add(chosen, weighted)
    ops.tape.delete(chosen, shared, weighted)
    return result


def dense(ops: Operations, layer: Layer, given: FakeTensor) -> FakeTensor:
    tape, gate, up, down = (
        ops.tape,
        layer.linears_of("gate_proj"),
        layer.linears_of("up_proj"),
        layer.linears_of("down_proj"),
    )
    together = layer.linears_of("gate_up_proj")
    if together:
        both = ops.linear(given, together[0])
        left, right = tape.view(both, both.numel // 2), tape.view(both, both.numel // 2)
        tape.delete(both)
    elif gate and up:
        left, right = ops.linear(given, gate[0]), None
    else:
        left, right = (ops.linear(given, up[0]) if up else tape.view(given)), None
    product = gated(ops, left, right if together else (lambda: ops.linear(given, up[0])) if gate and up else None)
    result = ops.linear(product, down[0]) if down else tape.view(product, given.numel)
    tape.delete(product)
    return result


def gated(ops: Operations, left: FakeTensor, right: FakeTensor | Callable[[], FakeTensor] | None) -> FakeTensor:
    """act(left) · right; the product keeps both factors. Lets go of left and right."""
    tape = ops.tape
    active = activated(ops, left)
    if right is None:
        return active
    other = right() if callable(right) else right
    product = tape.op(other.numel, other.itemsize, [active, other], [active, other])
    tape.delete(active, other)
    return product


def activated(ops: Operations, value: FakeTensor) -> FakeTensor:
    """act(value): one kernel that keeps its input (ReLU: its result); some are written out in transformers' activations.py. Lets go of value."""
    tape, name = ops.tape, ops.architecture.traits.activation
    if name in ("gelu_new", "gelu_fast"):
        result = written_gelu(ops, value, name == "gelu_fast")
    elif name == "quick_gelu":
        steep = tape.op(value.numel, value.itemsize, [value])
        gate = tape.op(value.numel, value.itemsize, [steep], saves_result=True)
        tape.delete(steep)
        result = tape.op(value.numel, value.itemsize, [value, gate], [value, gate])
        tape.delete(gate)
    elif name.startswith("relu"):
        result = tape.op(value.numel, value.itemsize, [value], saves_result=True)
    else:
        result = tape.op(value.numel, value.itemsize, [value], [value])
    tape.delete(value)
    return result


def written_gelu(ops: Operations, value: FakeTensor, fast: bool) -> FakeTensor:
    """0.5·x · (1 + tanh(√(2/π)·(x + 0.044715·x³))), each operation by itself; CUDA's autocast takes the power in float32, and all that follows."""
    tape, size = ops.tape, value.numel

    def then(before: FakeTensor, saves: tuple[FakeTensor, ...] = (), **more: Any) -> FakeTensor:
        made = tape.op(size, before.itemsize, [before], saves, **more)
        tape.delete(before)
        return made

    low = tape.op(size, value.itemsize, [value])  # 0.5·x
    if fast:  # x·√(2/π) · (1 + 0.044715·x·x)
        bent = tape.op(size, value.itemsize, [value])
        small = tape.op(size, value.itemsize, [value])
        square = tape.op(size, value.itemsize, [small, value], [small, value])
        tape.delete(small)
        factor = then(square)
        inner = tape.op(size, value.itemsize, [bent, factor], [bent, factor])
        tape.delete(bent, factor)
    else:
        wide = ops.cast(value, 4) if ops.loop.autocast_itemsize and ops.loop.device == "cuda" else tape.view(value)
        cube = then(wide, (wide,))
        inner = then(walk_sum(ops, then(cube), value))
    high = then(then(inner, saves_result=True))
    result = tape.op(size, max(low.itemsize, high.itemsize), [low, high], [low, high])
    tape.delete(low, high)
    return result


def walk_sum(ops: Operations, left: FakeTensor, right: FakeTensor) -> FakeTensor:
    """left + right; lets go of left."""
    made = ops.add(left, right)
    ops.tape.delete(left)
    return made


def experts(ops: Operations, layer: Layer, given: FakeTensor) -> FakeTensor:
    """A router, then the chosen experts on the rows sent to them, summed back."""
    tape, architecture = ops.tape, ops.architecture
    rows = given.numel // architecture.hidden_size * max(1, architecture.num_experts_per_tok)
    sent = tape.op(rows * architecture.hidden_size, given.itemsize, [given])
    left = ops.base_linear(sent, Linear("", architecture.hidden_size, layer.intermediate_size, False, "gate_proj"))
    right = ops.base_linear(sent, Linear("", architecture.hidden_size, layer.intermediate_size, False, "up_proj"))
    tape.delete(sent)
    product = gated(ops, left, right)
    down = ops.base_linear(product, Linear("", layer.intermediate_size, architecture.hidden_size, False, "down_proj"))
    tape.delete(product)
    weighted = tape.op(rows * architecture.hidden_size, down.itemsize, [down], [down])
    tape.delete(down)
    result = tape.op(given.numel, weighted.itemsize, [weighted])
    tape.delete(weighted)
    return result
