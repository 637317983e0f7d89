"""Whether models fit in memory beside what is loaded and what a running training still needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studio import device, model, run
from studio.base.quantization import Quantization
from studio.errors import DeviceError
from studio.memory.states import quantized_bytes
from studio.talk.reference import ModelReference

OVERHEAD = 700_000_000  # bytes of torch and its libraries, kernels and a few conversations, beside the weights


def check(loaded: Sequence[ModelReference], new: Sequence[ModelReference]) -> None:
    """Raise DeviceError where `new` beside `loaded` does not fit, or takes what a running training still needs."""
    need = size([*loaded, *new], True) - size(loaded, True) + (0 if loaded else OVERHEAD)
    first = device.devices()[0]
    names = ", ".join(reference.name for reference in new)
    training, reserve = reserved_by_training()

    def gb(count: int) -> str:
        return f"{count / 2**30:.1f} GiB"

    if need <= first.free - reserve:
        return
    if training and need <= first.free:
        raise DeviceError(
            f"{names} needs {gb(need)}, and {gb(first.free)} of {first.name} are free, but the running training "
            f"{training} will still take {gb(reserve)} of them: it would run out of memory.",
            "Wait until it has ended, stop it, or load a smaller model.",
            "memory",
        )
    hint = "End what else uses the memory, or load a smaller model."
    raise DeviceError(f"{names} needs {gb(need)}, but only {gb(first.free)} of {first.name} are free.", hint, "memory")


def reserved_by_training() -> tuple[str, int]:
    """(run, bytes that it was estimated to need and has not taken yet) of the running training, else ("", 0)."""
    for training in run.runs():
        if training.state(training.events()) in run.ALIVE:
            summary = run.summary(training)
            return training.id, max(0, (summary["estimated_memory"] or 0) - (summary["peak_memory"] or 0))
    return "", 0


def size(references: Sequence[ModelReference], quantized: bool = False) -> int:
    """Bytes of weights that these models hold together, each base once. quantized: in the bits of the training."""
    adapters = [reference for reference in references if not reference.standalone]
    bases = {(reference.base, reference.quantization if quantized else None) for reference in adapters}
    full = [reference for reference in references if reference.standalone]
    return (
        sum(_base_bytes(base, quantization) for base, quantization in bases)
        + sum(reference.bytes for reference in adapters)
        + sum(max(reference.bytes, model.facts(reference.base).bytes) for reference in full)
    )


def _base_bytes(base: Path, quantization: Quantization | None) -> int:
    """Bytes of a base's weights as in its files, or with its linears quantized and the rest in 16 bits."""
    facts = model.facts(base)
    if quantization is None:
        return facts.bytes
    linears = {f"{name}.weight" for name in facts.linears()}
    return sum(
        quantized_bytes(tensor.shape, quantization.kind, quantization.double) if name in linears else 2 * tensor.size
        for name, tensor in facts.tensors.items()
    )
