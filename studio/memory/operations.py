"""Walk: the small operations of a decoder on the tape, each saving what PyTorch's derivative of it saves."""

from __future__ import annotations

from studio.footprint import Footprint
from studio.memory.architecture import LAYER, Architecture, Layer, Linear
from studio.memory.autograd_tape import FakeTensor, Storage, Tape
from studio.memory.training_loop import TrainingLoop
from studio.model import EMBEDDING, HEAD


class Operations:
    """A tape with what is walked on it. Every method takes values and leaves their names to the caller unless it says
    otherwise.
    """

    def __init__(self, tape: Tape, loop: TrainingLoop, architecture: Architecture, footprint: Footprint):
        self.tape, self.loop, self.architecture, self.footprint = tape, loop, architecture, footprint
        self.copies: list[Storage] = []  # of trained weights, which autocast keeps until it ends
        self.copied_bytes = 0
        self.kept_output: FakeTensor | None = None  # the model's output, which the caller may keep until after backward
        tables = [name for name in footprint.weights if EMBEDDING.search(name)]
        self.trains_embedding = bool(tables)
        self.trains_head = (
            any(HEAD.search(name) for name in footprint.weights) or architecture.tied and self.trains_embedding
        )
        self.trains_final_norm = any(
            "norm" in name and not LAYER.match(name) or "ln_f" in name for name in footprint.weights
        )

    # -- small things

    def cast(self, value: FakeTensor, itemsize: int) -> FakeTensor:
        """value.to(type): the same tensor under another name where nothing changes, else a copy."""
        return self.tape.view(value) if value.itemsize == itemsize else self.tape.op(value.numel, itemsize, [value])

    def add(self, left: FakeTensor, right: FakeTensor) -> FakeTensor:
        return self.tape.op(max(left.numel, right.numel), max(left.itemsize, right.itemsize), [left, right], alias=True)

    def copy(self, value: FakeTensor) -> FakeTensor:
        return self.tape.op(value.numel, value.itemsize, [value], alias=True)

    def trained_linear(
        self, value: FakeTensor, inputs: int, outputs: int, itemsize: int, bias: bool = False
    ) -> FakeTensor:
        """A linear whose weight is trained: keeps its input, and under autocast the cast copy of its weight (FSDP
        gathers it as it is needed).
        """
        tape, compute = self.tape, self.loop.autocast_itemsize or itemsize
        rows = value.numel // inputs
        given = self.cast(value, compute)
        numbers = inputs * outputs + (outputs if bias else 0)
        held = [given]
        copied = None
        if compute != itemsize and not self.loop.fsdp:
            copied = FakeTensor(tape.allocate(numbers * compute, "workspace"), numbers, compute, None)
            held.append(copied)
        result = tape.op(
            rows * outputs,
            compute,
            [given],
            held,
            weights=numbers * itemsize,
            back_scratch=numbers * compute if copied else 0,
        )
        if copied and not tape.saving:
            self.copies.append(tape.retain(copied.storage))
            self.copied_bytes += copied.storage.nbytes
        tape.delete(given, copied)
        return result

    # -- linears and what tuning puts on them

    def linear(self, value: FakeTensor, linear: Linear) -> FakeTensor:
        footprint, name = self.footprint, linear.name
        factor = footprint.scaled.get(name)
        if factor == linear.in_features != linear.out_features:
            wide = self.cast(value, footprint.trained_itemsize)  # peft casts the input of a feed-forward module first
            scaled = self.scaled(wide, linear.in_features)
            self.tape.delete(wide)
            result = self.base_linear(scaled, linear)
            self.tape.delete(scaled)
        else:
            result = self.base_linear(value, linear)
        if footprint.low_rank.get(name):
            result = self.low_rank(value, result, linear, footprint.low_rank[name])
        if factor == linear.out_features:
            before, result = result, self.scaled(result, linear.out_features)
            self.tape.delete(before)
        if footprint.bottleneck.get(name):
            result = self.bottleneck(result, linear.out_features, footprint.bottleneck[name])
        return result

    def base_linear(self, value: FakeTensor, linear: Linear) -> FakeTensor:
        tape, loop = self.tape, self.loop
        rows = value.numel // linear.in_features
        if f"{linear.name}.weight" in self.footprint.weights:
            return self.trained_linear(
                value, linear.in_features, linear.out_features, self.footprint.trained_itemsize, linear.bias
            )
        compute = 2 if self.footprint.quantized else loop.compute_itemsize
        given = self.cast(value, compute)
        weight = linear.in_features * linear.out_features * 2 if self.footprint.quantized else 0
        result = tape.op(
            rows * linear.out_features, compute, [given], scratch=weight, back_scratch=weight, reads=not weight
        )
        tape.delete(given)
        if (
            self.footprint.quantized and not loop.autocast_itemsize and value.itemsize != compute
        ):  # bitsandbytes gives back the type it was given
            narrow, result = result, self.cast(result, value.itemsize)
            tape.delete(narrow)
        return result

    def low_rank(self, value: FakeTensor, result: FakeTensor, linear: Linear, rank: int) -> FakeTensor:
        """result + B(A(dropout(x))) · scaling, as peft's lora.Linear writes it. Lets go of result."""
        tape, loop, itemsize = self.tape, self.loop, self.footprint.trained_itemsize
        rows = value.numel // linear.in_features
        quantized = bool(self.footprint.quantized)
        if quantized:  # peft clones what bitsandbytes gives
            first, result = result, self.copy(result)
            tape.delete(first)
        kept = (
            loop.fused_adapters and not self.footprint.decomposed or quantized and loop.device == "cuda"
        )  # peft asks for CUDA's autocast only
        given = tape.view(value) if kept and loop.autocast_itemsize else self.cast(value, itemsize)
        if self.footprint.dropout and loop.fused_adapters and loop.device == "cpu" and not self.footprint.decomposed:
            inner = self.dropout_linear(given, linear.in_features, rank)
        else:
            masked = self.dropout(given) if self.footprint.dropout else tape.view(given)
            if self.footprint.decomposed:
                return self.decomposed(result, given, masked, linear, rank)
            inner = self.trained_linear(masked, linear.in_features, rank, itemsize)
            tape.delete(masked)
        outer = self.trained_linear(inner, rank, linear.out_features, itemsize)
        tape.delete(inner)
        scaled = tape.op(rows * linear.out_features, outer.itemsize, [outer])
        tape.delete(outer)
        if quantized:
            narrow, scaled = scaled, self.cast(scaled, result.itemsize)
            tape.delete(narrow)
        total = self.add(result, scaled)
        tape.delete(scaled)
        final = self.cast(total, result.itemsize)
        tape.delete(total, result, given)
        return final

    def dropout_linear(self, given: FakeTensor, inputs: int, rank: int) -> FakeTensor:
        """worker/fast_lora.py's DropoutLinear: keeps its input as it is and a byte an element; 16 bits an element are
        drawn for it.
        """
        tape, compute = self.tape, self.loop.autocast_itemsize or self.footprint.trained_itemsize
        kept = FakeTensor(tape.allocate(given.numel, "activations"), given.numel, 1, None)
        product = given.numel * (given.itemsize + (compute if compute != given.itemsize else 0))
        inner = tape.op(
            given.numel // inputs * rank,
            compute,
            [given],
            [given, kept],
            scratch=max(product, 2 * given.numel),
            weights=inputs * rank * self.footprint.trained_itemsize,
            back_scratch=product,
        )
        tape.delete(kept)
        return inner

    def decomposed(
        self, result: FakeTensor, given: FakeTensor, masked: FakeTensor, linear: Linear, rank: int
    ) -> FakeTensor:
        """DoRA as peft's DoraLinearLayer writes it: result + (m - 1)·base + m·B(A(x))·scaling, m: length learnt over
        length of the row of W + BA.

        That length takes B·A and three sums of the weight's size in the input's type. Behind dropout the base is
        computed anew, from a plain copy of its weight, which backward reads. Lets go of result, given and masked.
        """
        tape, loop, itemsize = self.tape, self.loop, self.footprint.trained_itemsize
        square, compute = linear.in_features * linear.out_features, loop.autocast_itemsize or masked.itemsize
        tape.allocate_briefly(
            linear.in_features**2 * (itemsize + (compute if compute != itemsize else 0))
            + square * (4 * masked.itemsize + (compute if compute != masked.itemsize else 0)),
            "workspace",
        )
        if self.footprint.dropout:
            copied = (
                compute != loop.weight_itemsize or masked.itemsize != loop.weight_itemsize or self.footprint.quantized
            )
            weight = FakeTensor(tape.allocate(square * compute if copied else 0, "activations"), square, compute, None)
            narrow = self.cast(masked, compute)
            base = tape.op(
                masked.numel // linear.in_features * linear.out_features,
                compute,
                [narrow],
                [weight],
                scratch=square * masked.itemsize if copied else 0,
            )
            tape.delete(weight, narrow)
        else:
            base = tape.view(result)
        inner = self.trained_linear(masked, linear.in_features, rank, itemsize)
        outer = self.trained_linear(inner, rank, linear.out_features, itemsize)
        tape.delete(inner, masked, given)
        own = tape.op(
            base.numel,
            max(itemsize, base.itemsize),
            [base],
            [base],
            weights=linear.out_features * itemsize,
            back_scratch=base.numel * itemsize,
        )
        more = tape.op(
            outer.numel, max(itemsize, outer.itemsize), [outer], [outer], back_scratch=outer.numel * itemsize
        )
        strong = tape.op(more.numel, more.itemsize, [more])
        tape.delete(base, outer, more)
        change = self.add(own, strong)
        tape.delete(own, strong)
        total = self.add(result, change)
        tape.delete(change)
        final = self.cast(total, result.itemsize)
        tape.delete(total, result)
        return final

    def dropout(self, value: FakeTensor) -> FakeTensor:
        """CUDA keeps a mask of one byte an element; the CPU keeps the noise in the value's own type."""
        itemsize = 1 if self.loop.device == "cuda" else value.itemsize
        mask = FakeTensor(self.tape.allocate(value.numel * itemsize, "activations"), value.numel, itemsize, None)
        result = self.tape.op(value.numel, value.itemsize, [value], [mask])
        self.tape.delete(mask)
        return result

    def scaled(self, value: FakeTensor, width: int) -> FakeTensor:
        """(IA)3: value times a trained vector in float32, back in the value's type."""
        product = self.tape.op(
            value.numel,
            max(value.itemsize, self.footprint.trained_itemsize),
            [value],
            [value],
            weights=width * self.footprint.trained_itemsize,
            back_scratch=(2 if value.itemsize < self.footprint.trained_itemsize else 1)
            * value.numel
            * self.footprint.trained_itemsize,
        )
        result = self.cast(product, value.itemsize)
        self.tape.delete(product)
        return result

    def bottleneck(self, value: FakeTensor, width: int, inner: int) -> FakeTensor:
        """h + up(act(down(h))), Houlsby et al. 2019. Lets go of value."""
        tape, itemsize = self.tape, self.footprint.trained_itemsize
        given = self.cast(value, itemsize)
        down = self.trained_linear(given, width, inner, itemsize, bias=True)
        tape.delete(given)
        active = tape.op(down.numel, down.itemsize, [down], [down])
        tape.delete(down)
        up = self.trained_linear(active, inner, width, itemsize, bias=True)
        tape.delete(active)
        total = self.add(value, up)
        tape.delete(up)
        result = self.cast(total, value.itemsize)
        tape.delete(total, value)
        return result

    def dropped(self, value: FakeTensor, rate: float) -> FakeTensor:
        """The model's own dropout while it trains. Lets go of value."""
        if not rate:
            return value
        result = self.dropout(value)
        self.tape.delete(value)
        return result

    # -- norms

    def trains_norms(self, layer: Layer) -> bool:
        """Whether a layer's norms are trained."""
        return any(
            name.startswith(layer.prefix) and ("norm" in name or ".ln_" in name) for name in self.footprint.weights
        )

    def norm(self, value: FakeTensor, width: int, trained: bool) -> FakeTensor:
        """RMSNorm as transformers writes it (float32 inside), or torch's layer norm, or a fused one that keeps its
        input alone.
        """
        if self.loop.fused_norms:
            return self.plain_norm(value, width, 4, trained)
        if self.architecture.rms_norm:
            return self.rms_norm(value, width, trained)
        wide = (
            self.cast(value, 4) if self.loop.autocast_itemsize and self.loop.device == "cuda" else self.tape.view(value)
        )
        result = self.plain_norm(wide, width, 8, trained)
        self.tape.delete(wide)
        return result

    def plain_norm(self, value: FakeTensor, width: int, row: int, trained: bool) -> FakeTensor:
        """A norm in one kernel, which keeps its input and `row` bytes a row."""
        rest = FakeTensor(
            self.tape.allocate(value.numel // width * row, "activations"), value.numel // width, row, None
        )
        result = self.tape.op(
            value.numel,
            value.itemsize,
            [value],
            [value, rest],
            weights=2 * width * self.footprint.trained_itemsize if trained else 0,
        )
        self.tape.delete(rest)
        return result

    def rms_norm(self, value: FakeTensor, width: int, trained: bool) -> FakeTensor:
        tape, size, rows = self.tape, value.numel, value.numel // width
        wide = self.cast(value, 4)
        square = tape.op(size, 4, [wide], [wide], back_scratch=size * 4)
        mean = tape.op(rows, 4, [square])
        tape.delete(square)
        root = tape.op(rows, 4, [mean], saves_result=True)
        tape.delete(mean)
        product = tape.op(size, 4, [wide, root], [wide, root], back_scratch=size * 4)
        tape.delete(wide, root)
        narrow = product if self.architecture.traits.float32_norm_weight else self.cast(product, value.itemsize)
        if not self.architecture.traits.float32_norm_weight:
            tape.delete(product)
        itemsize = (
            4
            if self.architecture.traits.float32_norm_weight or self.loop.kbit
            else self.footprint.trained_itemsize
            if trained
            else self.loop.weight_itemsize
        )
        result = tape.op(
            size,
            max(narrow.itemsize, itemsize),
            [narrow],
            [narrow] if trained else [],
            weights=width * itemsize if trained else 0,
            back_scratch=size * max(narrow.itemsize, itemsize) if trained else 0,
            reads=True,
        )
        tape.delete(narrow)
        if self.architecture.traits.float32_norm_weight:
            final = self.cast(result, value.itemsize)
            tape.delete(result)
            return final
        return result
