"""The small operations of a decoder on the tape, each saving what PyTorch's derivative of it saves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from studio.base.tensors import EMBEDDING, HEAD
from studio.footprint import Footprint
from studio.memory.architecture import LAYER, Architecture, Layer
from studio.memory.autograd_tape import Back, FakeTensor, Storage, Tape
from studio.memory.training_loop import TrainingLoop


class Operations:
    """A tape with the model and loop walked on it. Methods delete their arguments' names only where they say so."""

    def __init__(self, tape: Tape, loop: TrainingLoop, architecture: Architecture, footprint: Footprint):
        self.tape = tape
        self.loop = loop
        self.architecture = architecture
        self.footprint = footprint
        self.copies: list[Storage] = []  # of trained weights, which autocast keeps until it ends
        self.copied_bytes = 0
        self.kept_output: FakeTensor | None = None  # the model's output, which the caller may keep until after backward
        self.trains_embedding, head, self.trains_final_norm = _trained_parts(footprint.weights)
        self.trains_head = head or architecture.tied and self.trains_embedding

    # -- small things

    def cast(self, value: FakeTensor, itemsize: int) -> FakeTensor:
        """value.to(type): the same tensor under another name where nothing changes, else a copy."""
        return self.tape.view(value) if value.itemsize == itemsize else self.tape.op(value.numel, itemsize, [value])

    def convert(self, value: FakeTensor, itemsize: int) -> FakeTensor:
        """As cast. Deletes value."""
        result = self.cast(value, itemsize)
        self.tape.delete(value)
        return result

    def add(self, left: FakeTensor, right: FakeTensor, deletes: Sequence[FakeTensor] = ()) -> FakeTensor:
        numel, itemsize = max(left.numel, right.numel), max(left.itemsize, right.itemsize)
        return self.tape.op(numel, itemsize, [left, right], deletes=deletes, back=Back(alias=True))

    def add_to(self, left: FakeTensor, right: FakeTensor) -> FakeTensor:
        """left + right in left's type. Deletes both."""
        total = self.convert(self.add(left, right, [right]), left.itemsize)
        self.tape.delete(left)
        return total

    def copy(self, value: FakeTensor, deletes: Sequence[FakeTensor] = ()) -> FakeTensor:
        return self.tape.op(value.numel, value.itemsize, [value], deletes=deletes, back=Back(alias=True))

    def trained_linear(
        self, x: FakeTensor, in_features: int, out_features: int, itemsize: int, bias: bool = False
    ) -> FakeTensor:
        """A linear whose weight is trained: keeps its input, and under autocast the cast copy of its weight (FSDP
        gathers it as it is needed).
        """
        tape, compute = self.tape, self.loop.autocast_itemsize or itemsize
        x_cast = self.cast(x, compute)
        numel = (in_features + bias) * out_features
        copied = tape.new(numel, compute, "workspace") if compute != itemsize and not self.loop.fsdp else None
        result = tape.op(
            x.numel // in_features * out_features,
            compute,
            [x_cast],
            [x_cast, copied] if copied else [x_cast],
            back=Back(weights=numel * itemsize, scratch=copied.nbytes if copied else 0),
        )
        if copied and not tape.saving:
            self.copies.append(tape.retain(copied.storage))
            self.copied_bytes += copied.storage.nbytes
        tape.delete(x_cast, copied)
        return result

    def dropout(self, value: FakeTensor) -> FakeTensor:
        """CUDA keeps a mask of one byte an element; the CPU keeps the noise in the value's own type."""
        mask = self.tape.new(value.numel, 1 if self.loop.device == "cuda" else value.itemsize)
        return self.tape.op(value.numel, value.itemsize, [value], [mask], deletes=[mask])

    def dropped(self, value: FakeTensor, rate: float) -> FakeTensor:
        """The model's own dropout while it trains. Deletes value."""
        if not rate:
            return value
        result = self.dropout(value)
        self.tape.delete(value)
        return result

    # -- norms

    def trains_norms(self, layer: Layer) -> bool:
        """Whether a layer's norms are trained."""
        return _trains_norms(self.footprint.weights, layer.prefix)

    def norm(self, value: FakeTensor, width: int, trained: bool) -> FakeTensor:
        """RMSNorm as transformers writes it (float32 inside), torch's layer norm, or a fused one saving its input."""
        if self.loop.fused_norms:
            return self.plain_norm(value, width, 4, trained)
        if self.architecture.rms_norm:
            return self.rms_norm(value, width, trained)
        widens = self.loop.autocast_itemsize and self.loop.device == "cuda"
        wide = self.cast(value, 4 if widens else value.itemsize)
        result = self.plain_norm(wide, width, 8, trained)
        self.tape.delete(wide)
        return result

    def plain_norm(self, value: FakeTensor, width: int, row: int, trained: bool) -> FakeTensor:
        """A norm in one kernel, which keeps its input and `row` bytes a row."""
        statistics = self.tape.new(value.numel // width, row)
        weights = 2 * width * self.footprint.trained_itemsize if trained else 0
        return self.tape.op(
            value.numel, value.itemsize, [value], [value, statistics], deletes=[statistics], back=Back(weights=weights)
        )

    def rms_norm(self, value: FakeTensor, width: int, trained: bool) -> FakeTensor:
        """value / √(mean(value²) + ε) · weight, each operation by itself."""
        tape, size, rows = self.tape, value.numel, value.numel // width
        float32_weight = self.architecture.traits.float32_norm_weight
        wide = self.cast(value, 4)
        square = tape.op(size, 4, [wide], [wide], back=Back(scratch=size * 4))
        mean = tape.op(rows, 4, [square], deletes=[square])
        root = tape.op(rows, 4, [mean], deletes=[mean], back=Back(saves_result=True))
        product = tape.op(size, 4, [wide, root], [wide, root], deletes=[wide, root], back=Back(scratch=size * 4))
        narrow = product if float32_weight else self.convert(product, value.itemsize)
        itemsize = self.footprint.trained_itemsize if trained else self.loop.weight_itemsize
        if float32_weight or self.loop.kbit:
            itemsize = 4
        result = tape.op(
            size,
            max(narrow.itemsize, itemsize),
            [narrow],
            [narrow] if trained else [],
            back=Back(
                weights=width * itemsize if trained else 0,
                scratch=size * max(narrow.itemsize, itemsize) if trained else 0,
                reads=True,
            ),
        )
        tape.delete(narrow)
        return self.convert(result, value.itemsize) if float32_weight else result


@lru_cache(maxsize=64)
def _trained_parts(weights: frozenset[str]) -> tuple[bool, bool, bool]:
    """Whether embedding, head and final norm are among these names."""
    return (
        any(EMBEDDING.search(name) for name in weights),
        any(HEAD.search(name) for name in weights),
        any("norm" in name and not LAYER.match(name) or "ln_f" in name for name in weights),
    )


@lru_cache(maxsize=1024)
def _trains_norms(weights: frozenset[str], prefix: str) -> bool:
    return any(name.startswith(prefix) and ("norm" in name or ".ln_" in name) for name in weights)
