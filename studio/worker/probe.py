"""The probe: two steps on the largest piece of the data, and one held-out piece, before a long run begins.

A run that would die late for lack of memory dies at once, with its cause: the second pass runs beside what the first step leaves, the
optimizer's states and, where a step has several pieces, the gradients so far. Nothing is left behind: random states are put back, gradients and
states dropped, and the step between moves no weight.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from studio.errors import DeviceError
from studio.worker.batches import MicroBatchCollator, collate
from studio.worker.loss import loss

CPU_LIMIT = 6e12  # products (4 × weights × tokens of one pass) that a CPU does within a minute; beyond, the probe would take longer than it is worth
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class MemoryProbe(TrainerCallback):
    """Runs when the Trainer has everything in place, before the first evaluation and step; after a resume too, whose order may be another."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, began = self.trainer, time.monotonic()
        micro_batch = self.largest()
        size = sum(weight.numel() for weight in trainer.model.parameters())
        if args.device.type == "cpu" and 4 * size * _tokens(micro_batch) > CPU_LIMIT:
            trainer.report.note("The probe was left out: on this CPU it would take more than a minute.")
            return
        trainer.report.phase("probing")
        try:
            with untouched(trainer.model_wrapped), optimizer_dry_run(trainer.optimizer) as step:
                self.two_steps(micro_batch, step)
                if trainer.eval_dataset is not None:
                    with torch.no_grad():
                        trainer.micro_batch_loss(
                            trainer.model_wrapped.eval(), max(trainer.get_eval_dataloader(), key=_tokens)
                        )
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
                raise
            raise DeviceError(
                f"The device ran out of memory on the largest batch ({_tokens(micro_batch)} tokens), before the first step.",
                "Use a smaller training.batch_size with more accumulation, training.checkpointing: true, or a shorter data.max_length.",
                "training.batch_size",
                "memory",
            ) from error
        trainer.report.note(
            f"Probe: the largest batch ({_tokens(micro_batch)} tokens) fits; {time.monotonic() - began:.1f} s."
        )
        trainer.report.phase("training")

    def largest(self) -> dict[str, Any]:
        """The widest piece that the longest rows make."""
        return max(self.longest(), key=_tokens)

    def longest(self) -> list[dict[str, Any]]:
        """The pieces of a step of the longest rows."""
        return MicroBatchCollator(self.trainer.layout)(self.trainer.train_dataset.longest(self.trainer.effective))

    def two_steps(self, micro_batch: dict[str, Any], step: Callable[[], None]) -> None:
        """There and back, the optimizer's states, and there and back beside them. On a CPU the second pass is made only where the states are large:
        it takes seconds there, and a little more RAM ends no run."""
        model = self.trainer.model_wrapped.train()
        self.trainer.micro_batch_loss(model, micro_batch).backward()
        step()
        sizes = [weight.numel() for weight in model.parameters() if weight.requires_grad]
        if micro_batch["input_ids"].device.type == self.trainer.args.device.type == "cpu" and 10 * sum(sizes) < sum(
            map(torch.numel, model.parameters())
        ):
            return
        if len(self.longest()) == 1:
            model.zero_grad(set_to_none=True)
        self.trainer.micro_batch_loss(model, micro_batch).backward()


def _tokens(micro_batch: dict[str, Any]) -> int:
    return micro_batch["input_ids"].numel()


@contextmanager
def optimizer_dry_run(optimizer: Any) -> Iterator[Callable[[], None]]:
    """Gives a function that makes the optimizer's states as its first step would, by a step of no length on gradients of nought; then they go again.

    States that a resume has brought are there already. Paged ones are left out: they lie in managed memory, which CUDA moves to RAM.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # inside accelerate's
    fresh = not inner.state and not getattr(inner, "is_paged", False)
    kept = [{key: value for key, value in group.items() if key != "params"} for group in inner.param_groups]

    def step() -> None:
        for group in inner.param_groups:
            group["lr"] = 0.0
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.zero_()
        inner.step()

    try:
        yield step if fresh else lambda: None
    finally:
        for group, settings in zip(inner.param_groups, kept, strict=True):
            group.update(settings)
        if fresh:
            inner.state.clear()


def finite(model: Any, rows: list[dict[str, Any]], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the loss of each row is a number when products are computed in dtype: fp16 ends at 65,504, and some models (Gemma) go beyond."""
    model.eval()
    for row in rows:
        micro_batch = {key: value.to(device) for key, value in collate([row], False).items()}
        micro_batch["labels"] = micro_batch["input_ids"]
        with torch.no_grad(), torch.autocast(device.type, dtype):
            if not torch.isfinite(loss(model, micro_batch, "full", dtype)):
                return False
    return True


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Put the random states back and drop the gradients afterwards."""
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    state = random.getstate()
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            random.setstate(state)
            model.zero_grad(set_to_none=True)
