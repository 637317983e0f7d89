"""The memory probe: a step on the largest micro-batch of the data, and a held-out one, before a long run begins.

A run that would die late for lack of memory dies at once, with its cause: the second pass runs beside what the first
step leaves, the optimizer's states and, where a step has several micro-batches, the accumulated gradients. Nothing is
left behind: random states are restored, gradients and states dropped, and the step moves no weight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from studio.errors import DeviceError
from studio.worker.batches import MicroBatchCollator
from studio.worker.grpo import GroupObjective
from studio.worker.memory import is_out_of_memory
from studio.worker.modes import without_side_effects

CPU_LIMIT = 6e12  # multiplications (4 × weights × tokens of one pass) that a CPU does within a minute


class MemoryProbe(TrainerCallback):
    """Runs when the Trainer has everything in place, before the first evaluation and step; after a resume too."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, start = self.trainer, time.monotonic()
        micro_batches = self.longest_step()
        largest = max(micro_batches, key=_num_tokens)
        num_weights = sum(weight.numel() for weight in trainer.model.parameters())
        if args.device.type == "cpu" and 4 * num_weights * _num_tokens(largest) > CPU_LIMIT:
            trainer.report.note("The probe was left out: on this CPU it would take more than a minute.")
            return
        trainer.report.phase("probing")
        try:
            with without_side_effects(trainer.model_wrapped), optimizer_dry_run(trainer.optimizer) as optimizer_step:
                self.two_passes(largest, optimizer_step, accumulates=len(micro_batches) > 1)
                # one process alone measures fewer rows at a time where memory is short
                generates = isinstance(trainer.objective, GroupObjective)
                if trainer.eval_dataset is not None and trainer.world_size > 1 and not generates:
                    batches = trainer.get_eval_dataloader()
                    largest_eval = max(
                        (micro_batch for micro_batch in batches if "mismatched" not in micro_batch), key=_num_tokens
                    )
                    with torch.no_grad():
                        trainer.micro_batch_loss(trainer.model_wrapped.eval(), largest_eval)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"The device ran out of memory on the largest batch ({_num_tokens(largest)} tokens), "
                "before the first step.",
                "Use a smaller training.batch_size with more accumulation, training.checkpointing: true, or a shorter "
                "data.max_length.",
                "training.batch_size",
                "memory",
            ) from error
        if trainer.objective is not None:
            trainer.objective.metrics.take()
        seconds = time.monotonic() - start
        trainer.report.note(f"Probe: the largest batch ({_num_tokens(largest)} tokens) fits; {seconds:.1f} s.")
        trainer.report.phase("training")

    def longest_step(self) -> list[dict[str, Any]]:
        """The micro-batches of a step of the longest rows."""
        rows = self.trainer.train_dataset.longest(self.trainer.effective_batch_size)
        if isinstance(self.trainer.objective, GroupObjective):
            return self.trainer.objective.longest_step(rows)
        micro_batches = MicroBatchCollator(self.trainer.layout)(rows)
        return [micro_batch for micro_batch in micro_batches if "mismatched" not in micro_batch]

    def two_passes(self, micro_batch: dict[str, Any], optimizer_step: Callable[[], None], accumulates: bool) -> None:
        """Forward and backward, the brake's beside its gradients, the optimizer's states, and both beside those.

        On a CPU the second pass, which takes seconds there, is made only where the optimizer's states are large.
        """
        model, brake = self.trainer.model_wrapped.train(), self.trainer.brake
        self.trainer.micro_batch_loss(model, micro_batch).backward()
        if brake is not None:
            brake(model, brake.largest_step()).backward()
        optimizer_step()
        num_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        num_weights = sum(weight.numel() for weight in model.parameters())
        if (
            micro_batch["input_ids"].device.type == self.trainer.args.device.type == "cpu"
            and 10 * num_trained < num_weights
        ):
            return
        if not accumulates:
            model.zero_grad(set_to_none=True)
        self.trainer.micro_batch_loss(model, micro_batch).backward()
        if brake is not None:
            brake(model, brake.largest_step()).backward()


def _num_tokens(micro_batch: dict[str, Any]) -> int:
    return micro_batch["input_ids"].numel()


@contextmanager
def optimizer_dry_run(optimizer: Any) -> Iterator[Callable[[], None]]:
    """Yields a function that allocates the optimizer's states by a step at rate 0 on zero gradients.

    Drops them at the end.

    States that a resume has loaded are there already. Paged ones are left out: CUDA moves them to RAM.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # inside accelerate's
    is_fresh = not optimizer.state and not getattr(optimizer, "is_paged", False)
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]

    def step() -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.zero_()
        optimizer.step()

    try:
        yield step if is_fresh else lambda: None
    finally:
        for group, before in zip(optimizer.param_groups, settings, strict=True):
            group.update(before)
        if is_fresh:
            optimizer.state.clear()
