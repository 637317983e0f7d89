"""The training settings with no `auto` left, and why each was chosen, by auto.py's rules and the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from studio import auto, preflight
from studio.auto_values import eval_every, why_checkpointing, why_precision
from studio.config import RunConfig
from studio.device import Device
from studio.forecast import record
from studio.model import ModelFacts


class Resolved(NamedTuple):
    """dtype, weights and autocast are torch's names; dtype: of the base and of products, weights: of what is
    trained, autocast None: off. attention: as transformers names it, or packed (worker/attention.py).

    micro_batch_tokens: of a packed micro-batch; masked: whether padded rows need the mask that transformers makes;
    expected: the estimate's figures, for the record; why: a reason for each choice.
    """

    device: str
    dtype: str
    weights: str
    autocast: str | None
    checkpointing: bool
    checkpointed_layers: int
    optimizer: str
    loss: str
    attention: str
    packed: bool
    micro_batch_tokens: int
    batch_size: int
    effective: int
    steps: int
    eval_every: int
    save_every: int
    threads: int
    workers: int
    compile: bool
    fused_kernels: bool
    probe: bool
    estimated: int | None
    expected: dict[str, Any]
    why: dict[str, str]
    masked: bool = True

    def as_event(self) -> dict[str, Any]:
        """The fields of the plan event."""
        names = (
            "device", "weights", "checkpointing", "checkpointed_layers", "optimizer", "loss", "attention", "threads",
            "workers", "compile", "fused_kernels", "eval_every", "save_every", "expected", "why",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {
            "precision": self.dtype,
            "micro_batch": self.micro_batch_tokens if self.packed else self.batch_size,
            "packing": self.packed,
            "estimated_memory": self.estimated,
        }


def resolve(
    config: RunConfig, facts: ModelFacts, device: Device, statistics: Mapping[str, int], processes: int = 1
) -> Resolved:
    """Resolve by device, model and statistics of the data (rows, tokens, trained, max). Raises OrderError."""
    training, rows, longest = config.training, statistics["rows"], statistics["max"]
    preflight.check_settings(config, device)
    dtype, held = auto.precision(config, device), auto.weights(config, device)
    expected = record.forecast(facts, config, device, statistics)
    packed, kernel, why = auto.layout(config, facts, device, longest)
    fused, why_fused = auto.fused_kernels(config, facts, device)
    steps = config.steps(rows)
    every = eval_every(training, steps)
    return Resolved(
        device=device.traits.torch,
        dtype=dtype,
        weights=held,
        autocast=None if dtype == held else dtype,
        checkpointing=expected.checkpointing,
        checkpointed_layers=expected.checkpointed_layers,
        optimizer=expected.optimizer or auto.optimizer(config, device),
        loss=auto.loss(config),
        attention=kernel,
        packed=packed,
        micro_batch_tokens=expected.micro_batch or auto.packed_tokens(config, device, longest),
        batch_size=auto.padded_rows(config, longest, expected.micro_batch),
        effective=training.effective_batch(rows),
        steps=steps,
        eval_every=every,
        save_every=every if training.save_every == "auto" else training.save_every,
        threads=auto.threads(config, device, processes),
        workers=auto.workers(config, device),
        compile=training.compile,
        fused_kernels=fused,
        probe=auto.probe(config, device, expected.headroom),
        estimated=expected.total,
        expected=expected.as_event(),
        why={
            "packing": why,
            "fused_kernels": why_fused,
            "checkpointing": f"{'on' if expected.checkpointing else 'off'}: {why_checkpointing(config, expected)}",
            "precision": why_precision(config, device),
        },
        masked=auto.masked(config, facts, longest),
    )
