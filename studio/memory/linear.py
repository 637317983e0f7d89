"""A linear on the tape, and what tuning puts on it: LoRA and DoRA matrices, (IA)3's vectors, bottlenecks, 4 or 8 bits.

As in layer.py, each function leaves the names of its arguments to the caller unless its docstring says that it deletes
them.
"""

from __future__ import annotations

from studio.memory.architecture import Linear
from studio.memory.autograd_tape import Back, FakeTensor
from studio.memory.operations import Operations


def linear(ops: Operations, x: FakeTensor, module: Linear) -> FakeTensor:
    """The linear with all that the method has put on it."""
    footprint, name = ops.footprint, module.name
    width = footprint.scaled.get(name)
    if width == module.in_features != module.out_features:
        wide = ops.cast(x, footprint.trained_itemsize)  # peft casts the input of a feed-forward module first
        scaled_input = scaled(ops, wide, module.in_features)
        ops.tape.delete(wide)
        result = base_linear(ops, scaled_input, module)
        ops.tape.delete(scaled_input)
    elif footprint.low_rank.get(name) and ops.loop.adapters_in_place and not footprint.decomposed:
        result = low_rank_linear(ops, x, module, footprint.low_rank[name])
    else:
        result = base_linear(ops, x, module)
        if footprint.low_rank.get(name):
            result = low_rank(ops, x, result, module, footprint.low_rank[name])
    if width == module.out_features:
        before, result = result, scaled(ops, result, module.out_features)
        ops.tape.delete(before)
    if footprint.bottleneck.get(name):
        result = bottleneck(ops, result, module.out_features, footprint.bottleneck[name])
    return result


def base_linear(ops: Operations, x: FakeTensor, module: Linear) -> FakeTensor:
    """The linear alone: trained, frozen, or frozen in 4 or 8 bits, which are unpacked for the product."""
    tape, loop, footprint = ops.tape, ops.loop, ops.footprint
    if f"{module.name}.weight" in footprint.weights:
        return ops.trained_linear(x, module.in_features, module.out_features, footprint.trained_itemsize, module.bias)
    itemsize = 2 if footprint.quantized else loop.compute_itemsize
    unpacked = module.in_features * module.out_features * 2 if footprint.quantized else 0
    numel = x.numel // module.in_features * module.out_features
    x_cast = ops.cast(x, itemsize)
    result = tape.op(numel, itemsize, [x_cast], back=Back(scratch=unpacked, reads=not unpacked))
    tape.allocate_briefly(unpacked, "workspace")
    tape.delete(x_cast)
    if footprint.quantized and not loop.autocast_itemsize:  # bitsandbytes gives back the type it was given
        return ops.convert(result, x.itemsize)
    return result


def low_rank(ops: Operations, x: FakeTensor, result: FakeTensor, module: Linear, rank: int) -> FakeTensor:
    """result + B(A(dropout(x))) · scaling, as peft's lora.Linear writes it. Deletes result."""
    tape = ops.tape
    loop = ops.loop
    footprint = ops.footprint
    itemsize = ops.footprint.trained_itemsize
    if footprint.quantized:  # peft clones what bitsandbytes gives
        result = ops.copy(result, [result])
    # peft asks for CUDA's autocast only
    autocast = loop.fused_adapters and not footprint.decomposed or footprint.quantized and loop.device == "cuda"
    x_cast = tape.view(x) if autocast and loop.autocast_itemsize else ops.cast(x, itemsize)
    if footprint.decomposed:
        return decomposed(ops, result, x_cast, module, rank)
    masked = ops.dropout(x_cast) if footprint.dropout else tape.view(x_cast)
    inner = ops.trained_linear(masked, module.in_features, rank, itemsize)
    tape.delete(masked)
    outer = ops.trained_linear(inner, rank, module.out_features, itemsize)
    tape.delete(inner)
    change = tape.op(outer.numel, outer.itemsize, [outer], deletes=[outer])
    if footprint.quantized:
        change = ops.convert(change, result.itemsize)
    final = ops.add_to(result, change)
    tape.delete(x_cast)
    return final


def low_rank_linear(ops: Operations, x: FakeTensor, module: Linear, rank: int) -> FakeTensor:
    """worker/fast_lora.py's LowRankLinear: keeps its input as it is, a byte an element of it, and A·x.

    The base's product is part of it, but for a packed weight, whose result it then adds to.
    """
    tape = ops.tape
    loop = ops.loop
    footprint = ops.footprint
    itemsize = ops.footprint.trained_itemsize
    compute, tokens = loop.autocast_itemsize or itemsize, x.numel // module.in_features
    weights = rank * (module.in_features + module.out_features) * itemsize
    base = base_linear(ops, x, module) if footprint.quantized else None
    narrow = tape.new(x.numel, compute) if x.itemsize != compute else None
    mask = tape.new(x.numel, 1) if footprint.dropout else None
    if mask and loop.device == "cpu":
        tape.allocate_briefly(2 * x.numel, "workspace")  # the draws
    dropped = tape.allocate(x.numel * compute, "workspace") if mask else None
    inner = tape.new(tokens * rank, compute)
    if dropped:
        tape.release(dropped)
    saved = [x, inner] + ([mask] if mask else [])
    back = (tokens * rank + (x.numel if mask or narrow else 0)) * compute
    if base is None:
        numel = tokens * module.out_features
        result = tape.op(numel, compute, [x], saved, back=Back(weights=weights, scratch=back))
    else:
        change = tape.op(tokens, compute, [x], saved, back=Back(weights=weights, scratch=back))
        result = tape.op(base.numel, base.itemsize, [base, change], deletes=[base, change], back=Back(alias=True))
    tape.delete(narrow, mask, inner)
    return result


def decomposed(ops: Operations, result: FakeTensor, x: FakeTensor, module: Linear, rank: int) -> FakeTensor:
    """DoRA as peft's DoraLinearLayer writes it: result + (m - 1)·base + m·B(A(x))·scaling.

    m: learnt length over the length of the row of W + BA. That length takes B·A and three sums of the weight's size in
    the input's type. Behind dropout the base is computed anew, from a plain copy of its weight, which backward reads.
    Deletes result and given.
    """
    tape, loop, itemsize = ops.tape, ops.loop, ops.footprint.trained_itemsize
    masked = ops.dropout(x) if ops.footprint.dropout else tape.view(x)
    square, compute = module.in_features * module.out_features, loop.autocast_itemsize or masked.itemsize
    tape.allocate_briefly(
        module.in_features**2 * (itemsize + (compute if compute != itemsize else 0))
        + square * (4 * masked.itemsize + (compute if compute != masked.itemsize else 0)),
        "workspace",
    )
    base = base_again(ops, masked, module, compute) if ops.footprint.dropout else tape.view(result)
    inner = ops.trained_linear(masked, module.in_features, rank, itemsize)
    outer = ops.trained_linear(inner, rank, module.out_features, itemsize)
    tape.delete(inner, masked, x)
    own = tape.op(
        base.numel,
        max(itemsize, base.itemsize),
        [base],
        [base],
        back=Back(weights=module.out_features * itemsize, scratch=base.numel * itemsize),
    )
    product = tape.op(
        outer.numel, max(itemsize, outer.itemsize), [outer], [outer], back=Back(scratch=outer.numel * itemsize)
    )
    scaled_product = tape.op(product.numel, product.itemsize, [product], deletes=[base, outer, product])
    return ops.add_to(result, ops.add(own, scaled_product, [own, scaled_product]))


def base_again(ops: Operations, masked: FakeTensor, module: Linear, itemsize: int) -> FakeTensor:
    """The base's product of an input behind dropout, whose weight is copied where its type or packing differs."""
    tape, loop, square = ops.tape, ops.loop, module.in_features * module.out_features
    copied = ops.footprint.quantized or {itemsize, masked.itemsize} != {loop.weight_itemsize}
    weight = FakeTensor(tape.allocate(square * itemsize if copied else 0, "activations"), square, itemsize, None)
    narrow = ops.cast(masked, itemsize)
    numel = masked.numel // module.in_features * module.out_features
    result = tape.op(numel, itemsize, [narrow], [weight])
    tape.allocate_briefly(square * masked.itemsize if copied else 0, "workspace")
    tape.delete(weight, narrow)
    return result


def scaled(ops: Operations, x: FakeTensor, width: int) -> FakeTensor:
    """(IA)3: x times a trained vector in float32, back in x's type."""
    itemsize = ops.footprint.trained_itemsize
    product = ops.tape.op(
        x.numel,
        max(x.itemsize, itemsize),
        [x],
        [x],
        back=Back(weights=width * itemsize, scratch=(2 if x.itemsize < itemsize else 1) * x.numel * itemsize),
    )
    return ops.convert(product, x.itemsize)


def bottleneck(ops: Operations, hidden_states: FakeTensor, width: int, inner_width: int) -> FakeTensor:
    """h + up(act(down(h))), Houlsby et al. 2019. Deletes h."""
    tape, itemsize = ops.tape, ops.footprint.trained_itemsize
    x_cast = ops.cast(hidden_states, itemsize)
    down = ops.trained_linear(x_cast, width, inner_width, itemsize, bias=True)
    tape.delete(x_cast)
    active = tape.op(down.numel, down.itemsize, [down], [down], deletes=[down])
    up = ops.trained_linear(active, inner_width, width, itemsize, bias=True)
    tape.delete(active)
    return ops.add_to(hidden_states, up)
