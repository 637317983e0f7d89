"""One decoder layer on the tape: attention, mlp and residual sums, as transformers' modeling files write them.

Each function leaves the names of its arguments to the caller unless its docstring says that it deletes them.
"""

from __future__ import annotations

from collections.abc import Callable

from studio.memory.architecture import Layer, Linear
from studio.memory.attention import attention
from studio.memory.autograd_tape import Back, FakeTensor
from studio.memory.linear import base_linear, linear
from studio.memory.operations import Operations


def decoder_layer(ops: Operations, layer: Layer, hidden_states: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """x + attention(norm(x)), then x + mlp(norm(x)); or both side by side."""
    if ops.architecture.traits.parallel:
        return parallel_layer(ops, layer, hidden_states, mask)
    norms = sum(1 for width in layer.norms if width == ops.architecture.hidden_size)
    before_mlp = sublayer(
        ops, layer, hidden_states, lambda x: attention(ops, layer, x, mask), min(norms, 1) + (norms >= 4)
    )
    result = sublayer(ops, layer, before_mlp, lambda x: mlp(ops, layer, x), (norms >= 2) + (norms >= 4))
    ops.tape.delete(before_mlp)
    return result


def sublayer(
    ops: Operations, layer: Layer, residual: FakeTensor, inside: Callable[[FakeTensor], FakeTensor], norms: int
) -> FakeTensor:
    """residual + inside(norm(residual)). norms: 2 where one stands behind as well (Gemma 2 and 3)."""
    tape, traits, hidden_size = ops.tape, ops.architecture.traits, ops.architecture.hidden_size
    trained = ops.trains_norms(layer)
    normed = ops.norm(residual, hidden_size, trained) if norms and not traits.post_norm else tape.view(residual)
    output = inside(normed)
    tape.delete(normed)
    if norms == 2 or norms == 1 and traits.post_norm:
        before, output = output, ops.norm(output, hidden_size, trained)
        tape.delete(before)
    if traits.scaled_residual:
        output = tape.op(output.numel, output.itemsize, [output], deletes=[output])
    output = ops.dropped(output, traits.dropout)
    return ops.add(residual, output, [output])


def parallel_layer(ops: Operations, layer: Layer, residual: FakeTensor, mask: FakeTensor | None) -> FakeTensor:
    """x + attention(norm(x)) + mlp(norm(x)), with one norm for both or one each."""
    tape, traits, hidden_size = ops.tape, ops.architecture.traits, ops.architecture.hidden_size
    trained = ops.trains_norms(layer)
    normed = ops.norm(residual, hidden_size, trained)
    attn_output = ops.dropped(attention(ops, layer, normed, mask), traits.dropout)
    if not traits.shared_norm:
        tape.delete(normed)
        normed = ops.norm(residual, hidden_size, trained)
    mlp_output = ops.dropped(mlp(ops, layer, normed), traits.dropout)
    tape.delete(normed)
    both = ops.add(attn_output, mlp_output, [attn_output, mlp_output])
    return ops.add(both, residual, [both])


def mlp(ops: Operations, layer: Layer, hidden_states: FakeTensor) -> FakeTensor:
    """down_proj(act(gate_proj(x)) · up_proj(x)), or down_proj(act(up_proj(x))); or experts, with a shared one."""
    if not layer.num_experts:
        return dense_mlp(ops, layer, hidden_states)
    routed = experts(ops, layer, hidden_states)
    if not layer.linears_of("down_proj"):
        return routed
    shared = dense_mlp(ops, layer, hidden_states)
    weighted = ops.tape.op(shared.numel, shared.itemsize, [shared], [shared])
    return ops.add(routed, weighted, [routed, shared, weighted])


def dense_mlp(ops: Operations, layer: Layer, hidden_states: FakeTensor) -> FakeTensor:
    tape = ops.tape
    gate_up_proj, gate_proj = layer.linears_of("gate_up_proj"), layer.linears_of("gate_proj")
    up_proj, down_proj = layer.linears_of("up_proj"), layer.linears_of("down_proj")
    if gate_up_proj:
        gate_up = linear(ops, hidden_states, gate_up_proj[0])
        gate, up = tape.view(gate_up, gate_up.numel // 2), tape.view(gate_up, gate_up.numel // 2)
        tape.delete(gate_up)
        product = multiplied(ops, activation(ops, gate), up)
    elif gate_proj and up_proj and ops.loop.fused_feed_forward:
        product = multiplied(ops, linear(ops, hidden_states, gate_proj[0]), linear(ops, hidden_states, up_proj[0]))
    elif gate_proj and up_proj:
        active = activation(ops, linear(ops, hidden_states, gate_proj[0]))
        product = multiplied(ops, active, linear(ops, hidden_states, up_proj[0]))
    else:
        product = activation(ops, linear(ops, hidden_states, up_proj[0]) if up_proj else tape.view(hidden_states))
    result = linear(ops, product, down_proj[0]) if down_proj else tape.view(product, hidden_states.numel)
    tape.delete(product)
    return result


def experts(ops: Operations, layer: Layer, hidden_states: FakeTensor) -> FakeTensor:
    """The chosen experts on the tokens routed to them, weighted and summed back."""
    tape, hidden_size, inner = ops.tape, ops.architecture.hidden_size, layer.intermediate_size
    tokens = hidden_states.numel // hidden_size * max(1, ops.architecture.num_experts_per_tok)
    routed = tape.op(tokens * hidden_size, hidden_states.itemsize, [hidden_states])
    gate = base_linear(ops, routed, Linear("", hidden_size, inner, False, "gate_proj"))
    up = base_linear(ops, routed, Linear("", hidden_size, inner, False, "up_proj"))
    tape.delete(routed)
    product = multiplied(ops, activation(ops, gate), up)
    down = base_linear(ops, product, Linear("", inner, hidden_size, False, "down_proj"))
    tape.delete(product)
    weighted = tape.op(tokens * hidden_size, down.itemsize, [down], [down], deletes=[down])
    return tape.op(hidden_states.numel, weighted.itemsize, [weighted], deletes=[weighted])


def multiplied(ops: Operations, left: FakeTensor, right: FakeTensor) -> FakeTensor:
    """left · right; backward reads both factors. Deletes both."""
    return ops.tape.op(right.numel, right.itemsize, [left, right], [left, right], deletes=[left, right])


def activation(ops: Operations, x: FakeTensor) -> FakeTensor:
    """act(x): one kernel saving its input (ReLU: its result), or as transformers writes it out. Deletes x."""
    tape, name = ops.tape, ops.architecture.traits.activation
    if name in ("gelu_new", "gelu_fast"):
        result = gelu_new(ops, x, name == "gelu_fast")
    elif name == "quick_gelu":  # x · sigmoid(1.702·x)
        scaled = tape.op(x.numel, x.itemsize, [x])
        sigmoid = tape.op(x.numel, x.itemsize, [scaled], deletes=[scaled], back=Back(saves_result=True))
        result = tape.op(x.numel, x.itemsize, [x, sigmoid], [x, sigmoid], deletes=[sigmoid])
    elif name.startswith("relu"):
        result = tape.op(x.numel, x.itemsize, [x], back=Back(saves_result=True))
    else:
        result = tape.op(x.numel, x.itemsize, [x], [x])
    tape.delete(x)
    return result


def gelu_new(ops: Operations, x: FakeTensor, fast: bool) -> FakeTensor:
    """0.5·x · (1 + tanh(√(2/π)·(x + 0.044715·x³))) by operations; CUDA's autocast takes the power in float32."""
    tape, numel = ops.tape, x.numel

    def then(before: FakeTensor, *saves: FakeTensor, saves_result: bool = False) -> FakeTensor:
        return tape.op(numel, before.itemsize, [before], saves, deletes=[before], back=Back(saves_result=saves_result))

    half = tape.op(numel, x.itemsize, [x])  # 0.5·x
    if fast:  # x·√(2/π) · (1 + 0.044715·x·x)
        scaled = tape.op(numel, x.itemsize, [x])
        small = tape.op(numel, x.itemsize, [x])
        square = tape.op(numel, x.itemsize, [small, x], [small, x], deletes=[small])
        factor = then(square)
        inner = tape.op(numel, x.itemsize, [scaled, factor], [scaled, factor], deletes=[scaled, factor])
    else:
        wide = ops.cast(x, 4) if ops.loop.autocast_itemsize and ops.loop.device == "cuda" else tape.view(x)
        cube = then(then(wide, wide))  # 0.044715·x³
        inner = then(ops.add(cube, x, [cube]))
    tanh = then(then(inner, saves_result=True))
    return tape.op(numel, max(half.itemsize, tanh.itemsize), [half, tanh], [half, tanh], deletes=[half, tanh])
