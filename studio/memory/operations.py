"""Walk: the small operations of a decoder on the tape, each saving what PyTorch's derivative of it saves."""

from __future__ import annotations

from studio.footprint import Footprint
from studio.memory.architecture import LAYER, Architecture, Layer, Linear
from studio.memory.autograd_tape import Buffer, Tape, Value
from studio.memory.training_loop import TrainingLoop
from studio.model import EMBEDDING, HEAD


class Walk:
    """A tape with what is walked on it. Every method takes values and leaves their names to the caller unless it says otherwise."""

    def __init__(self, tape: Tape, loop: TrainingLoop, architecture: Architecture, footprint: Footprint):
        self.tape, self.loop, self.architecture, self.footprint = tape, loop, architecture, footprint
        self.copies: list[Buffer] = []  # of trained weights, which autocast keeps until it ends
        self.copied_bytes = 0
        self.held: Value | None = None  # the model's output, which the caller may keep until after backward
        tables = [name for name in footprint.weights if EMBEDDING.search(name)]
        self.table_moves = bool(tables)
        self.head_moves = any(HEAD.search(name) for name in footprint.weights) or architecture.tied and self.table_moves
        self.final_moves = any("norm" in name and not LAYER.match(name) or "ln_f" in name for name in footprint.weights)

    # -- small things

    def cast(self, value: Value, each: int) -> Value:
        """value.to(type): the same tensor under another name where nothing changes, else a copy."""
        return self.tape.view(value) if value.each == each else self.tape.op(value.size, each, [value])

    def add(self, left: Value, right: Value) -> Value:
        return self.tape.op(max(left.size, right.size), max(left.each, right.each), [left, right], alias=True)

    def copy(self, value: Value) -> Value:
        return self.tape.op(value.size, value.each, [value], alias=True)

    def trained_linear(self, value: Value, inputs: int, outputs: int, each: int, bias: bool = False) -> Value:
        """A linear whose weight is trained: keeps its input, and under autocast the cast copy of its weight (FSDP gathers it as it is needed)."""
        tape, compute = self.tape, self.loop.autocast or each
        rows = value.size // inputs
        given = self.cast(value, compute)
        numbers = inputs * outputs + (outputs if bias else 0)
        held = [given]
        copied = None
        if compute != each and not self.loop.split:
            copied = Value(tape.take(numbers * compute, "workspace"), numbers, compute, None)
            held.append(copied)
        result = tape.op(
            rows * outputs,
            compute,
            [given],
            held,
            weights=numbers * each,
            back_scratch=numbers * compute if copied else 0,
        )
        if copied and not tape.saving:
            self.copies.append(tape.hold(copied.buffer))
            self.copied_bytes += copied.buffer.bytes
        tape.drop(given, copied)
        return result

    # -- linears and what tuning puts on them

    def linear(self, value: Value, linear: Linear) -> Value:
        footprint, name = self.footprint, linear.name
        factor = footprint.scaled.get(name)
        if factor == linear.inputs != linear.outputs:
            wide = self.cast(value, footprint.each)  # peft casts the input of a feed-forward module first
            scaled = self.scaled(wide, linear.inputs)
            self.tape.drop(wide)
            result = self.base_linear(scaled, linear)
            self.tape.drop(scaled)
        else:
            result = self.base_linear(value, linear)
        if footprint.low_rank.get(name):
            result = self.low_rank(value, result, linear, footprint.low_rank[name])
        if factor == linear.outputs:
            before, result = result, self.scaled(result, linear.outputs)
            self.tape.drop(before)
        if footprint.bottleneck.get(name):
            result = self.bottleneck(result, linear.outputs, footprint.bottleneck[name])
        return result

    def base_linear(self, value: Value, linear: Linear) -> Value:
        tape, loop = self.tape, self.loop
        rows = value.size // linear.inputs
        if f"{linear.name}.weight" in self.footprint.weights:
            return self.trained_linear(value, linear.inputs, linear.outputs, self.footprint.each, linear.bias)
        compute = 2 if self.footprint.quantized else loop.compute
        given = self.cast(value, compute)
        weight = linear.inputs * linear.outputs * 2 if self.footprint.quantized else 0
        result = tape.op(rows * linear.outputs, compute, [given], scratch=weight, back_scratch=weight, reads=not weight)
        tape.drop(given)
        if (
            self.footprint.quantized and not loop.autocast and value.each != compute
        ):  # bitsandbytes gives back the type it was given
            narrow, result = result, self.cast(result, value.each)
            tape.drop(narrow)
        return result

    def low_rank(self, value: Value, result: Value, linear: Linear, rank: int) -> Value:
        """result + B(A(dropout(x))) · scaling, as peft's lora.Linear writes it. Lets go of result."""
        tape, loop, each = self.tape, self.loop, self.footprint.each
        rows = value.size // linear.inputs
        quantized = bool(self.footprint.quantized)
        if quantized:  # peft clones what bitsandbytes gives
            first, result = result, self.copy(result)
            tape.drop(first)
        kept = (
            loop.fused_adapters and not self.footprint.decomposed or quantized and loop.device == "cuda"
        )  # peft asks for CUDA's autocast only
        given = tape.view(value) if kept and loop.autocast else self.cast(value, each)
        if self.footprint.dropout and loop.fused_adapters and loop.device == "cpu" and not self.footprint.decomposed:
            inner = self.dropout_linear(given, linear.inputs, rank)
        else:
            masked = self.dropout(given) if self.footprint.dropout else tape.view(given)
            if self.footprint.decomposed:
                return self.decomposed(result, given, masked, linear, rank)
            inner = self.trained_linear(masked, linear.inputs, rank, each)
            tape.drop(masked)
        outer = self.trained_linear(inner, rank, linear.outputs, each)
        tape.drop(inner)
        scaled = tape.op(rows * linear.outputs, outer.each, [outer])
        tape.drop(outer)
        if quantized:
            narrow, scaled = scaled, self.cast(scaled, result.each)
            tape.drop(narrow)
        total = self.add(result, scaled)
        tape.drop(scaled)
        final = self.cast(total, result.each)
        tape.drop(total, result, given)
        return final

    def dropout_linear(self, given: Value, inputs: int, rank: int) -> Value:
        """worker/fast_lora.py's DropoutLinear: keeps its input as it is and a byte an element; 16 bits an element are drawn for it."""
        tape, compute = self.tape, self.loop.autocast or self.footprint.each
        kept = Value(tape.take(given.size, "activations"), given.size, 1, None)
        product = given.size * (given.each + (compute if compute != given.each else 0))
        inner = tape.op(
            given.size // inputs * rank,
            compute,
            [given],
            [given, kept],
            scratch=max(product, 2 * given.size),
            weights=inputs * rank * self.footprint.each,
            back_scratch=product,
        )
        tape.drop(kept)
        return inner

    def decomposed(self, result: Value, given: Value, masked: Value, linear: Linear, rank: int) -> Value:
        """DoRA as peft's DoraLinearLayer writes it: result + (m - 1)·base + m·B(A(x))·scaling, m: length learnt over length of the row of W + BA.

        That length takes B·A and three sums of the weight's size in the input's type. Behind dropout the base is computed anew, from a
        plain copy of its weight, which backward reads. Lets go of result, given and masked.
        """
        tape, loop, each = self.tape, self.loop, self.footprint.each
        square, compute = linear.inputs * linear.outputs, loop.autocast or masked.each
        tape.scratch(
            linear.inputs**2 * (each + (compute if compute != each else 0))
            + square * (4 * masked.each + (compute if compute != masked.each else 0)),
            "workspace",
        )
        if self.footprint.dropout:
            copied = compute != loop.base or masked.each != loop.base or self.footprint.quantized
            weight = Value(tape.take(square * compute if copied else 0, "activations"), square, compute, None)
            narrow = self.cast(masked, compute)
            base = tape.op(
                masked.size // linear.inputs * linear.outputs,
                compute,
                [narrow],
                [weight],
                scratch=square * masked.each if copied else 0,
            )
            tape.drop(weight, narrow)
        else:
            base = tape.view(result)
        inner = self.trained_linear(masked, linear.inputs, rank, each)
        outer = self.trained_linear(inner, rank, linear.outputs, each)
        tape.drop(inner, masked, given)
        own = tape.op(
            base.size,
            max(each, base.each),
            [base],
            [base],
            weights=linear.outputs * each,
            back_scratch=base.size * each,
        )
        more = tape.op(outer.size, max(each, outer.each), [outer], [outer], back_scratch=outer.size * each)
        strong = tape.op(more.size, more.each, [more])
        tape.drop(base, outer, more)
        change = self.add(own, strong)
        tape.drop(own, strong)
        total = self.add(result, change)
        tape.drop(change)
        final = self.cast(total, result.each)
        tape.drop(total, result)
        return final

    def dropout(self, value: Value) -> Value:
        """CUDA keeps a mask of one byte an element; the CPU keeps the noise in the value's own type."""
        each = 1 if self.loop.device == "cuda" else value.each
        mask = Value(self.tape.take(value.size * each, "activations"), value.size, each, None)
        result = self.tape.op(value.size, value.each, [value], [mask])
        self.tape.drop(mask)
        return result

    def scaled(self, value: Value, width: int) -> Value:
        """(IA)3: value times a trained vector in float32, back in the value's type."""
        product = self.tape.op(
            value.size,
            max(value.each, self.footprint.each),
            [value],
            [value],
            weights=width * self.footprint.each,
            back_scratch=(2 if value.each < self.footprint.each else 1) * value.size * self.footprint.each,
        )
        result = self.cast(product, value.each)
        self.tape.drop(product)
        return result

    def bottleneck(self, value: Value, width: int, inner: int) -> Value:
        """h + up(act(down(h))), Houlsby et al. 2019. Lets go of value."""
        tape, each = self.tape, self.footprint.each
        given = self.cast(value, each)
        down = self.trained_linear(given, width, inner, each, bias=True)
        tape.drop(given)
        active = tape.op(down.size, down.each, [down], [down])
        tape.drop(down)
        up = self.trained_linear(active, inner, width, each, bias=True)
        tape.drop(active)
        total = self.add(value, up)
        tape.drop(up)
        result = self.cast(total, value.each)
        tape.drop(total, value)
        return result

    def dropped(self, value: Value, rate: float) -> Value:
        """The model's own dropout while it trains. Lets go of value."""
        if not rate:
            return value
        result = self.dropout(value)
        self.tape.drop(value)
        return result

    # -- norms

    def norms_move(self, layer: Layer) -> bool:
        """Whether a layer's norms are trained."""
        return any(
            name.startswith(layer.prefix) and ("norm" in name or ".ln_" in name) for name in self.footprint.weights
        )

    def norm(self, value: Value, width: int, trained: bool) -> Value:
        """RMSNorm as transformers writes it (float32 inside), or torch's layer norm, or a fused one that keeps its input alone."""
        if self.loop.fused_norms:
            return self.plain_norm(value, width, 4, trained)
        if self.architecture.rms:
            return self.rms_norm(value, width, trained)
        wide = self.cast(value, 4) if self.loop.autocast and self.loop.device == "cuda" else self.tape.view(value)
        result = self.plain_norm(wide, width, 8, trained)
        self.tape.drop(wide)
        return result

    def plain_norm(self, value: Value, width: int, row: int, trained: bool) -> Value:
        """A norm in one kernel, which keeps its input and `row` bytes a row."""
        rest = Value(self.tape.take(value.size // width * row, "activations"), value.size // width, row, None)
        result = self.tape.op(
            value.size, value.each, [value], [value, rest], weights=2 * width * self.footprint.each if trained else 0
        )
        self.tape.drop(rest)
        return result

    def rms_norm(self, value: Value, width: int, trained: bool) -> Value:
        tape, size, rows = self.tape, value.size, value.size // width
        wide = self.cast(value, 4)
        square = tape.op(size, 4, [wide], [wide], back_scratch=size * 4)
        mean = tape.op(rows, 4, [square])
        tape.drop(square)
        root = tape.op(rows, 4, [mean], saves_result=True)
        tape.drop(mean)
        product = tape.op(size, 4, [wide, root], [wide, root], back_scratch=size * 4)
        tape.drop(wide, root)
        narrow = product if self.architecture.traits.late else self.cast(product, value.each)
        if not self.architecture.traits.late:
            tape.drop(product)
        each = (
            4 if self.architecture.traits.late or self.loop.kbit else self.footprint.each if trained else self.loop.base
        )
        result = tape.op(
            size,
            max(narrow.each, each),
            [narrow],
            [narrow] if trained else [],
            weights=width * each if trained else 0,
            back_scratch=size * max(narrow.each, each) if trained else 0,
            reads=True,
        )
        tape.drop(narrow)
        if self.architecture.traits.late:
            final = self.cast(result, value.each)
            tape.drop(result)
            return final
        return result
