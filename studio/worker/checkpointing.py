"""Checkpoints that are complete or absent.

The Trainer's public interface does not reach here, so two of its private methods are overridden, and transformers is
pinned to one minor version for them: `_save_checkpoint` has the Trainer write under a temporary name, verifies and
renames; `_load_from_checkpoint` reads the trained weights as the method wrote them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Trainer, TrainerState

from studio import memory_peak
from studio.errors import RunError
from studio.method import trained_weights
from studio.runs import checkpoints
from studio.worker import distributed, sharding


class CheckpointedTrainer(Trainer):
    """The subclass sets `method`, `report`, `checkpoints_to_keep`, `sharded` (FSDP), `rank` and `world_size`."""

    objective: Any = None  # of a stage that does not learn token by token (preference.py, grpo.py)
    resumed_from: Path | None = None  # the checkpoint that weights were last read from

    def train_from(self, checkpoint: Path | None, steps: int) -> None:
        """Train up to `steps`, from a checkpoint where there is one.

        From the checkpoint of the last step nothing is left to train, but the Trainer would take one step more. A run
        that stopped early is finished too, unless its number of steps was changed since.
        """
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else None
        if state is not None and state.global_step > steps:
            raise RunError(
                f"The order ends after {steps} steps, and the newest checkpoint has {state.global_step} behind it.",
                "Resume with more steps or epochs, or finish the run: its checkpoint becomes its result.",
                "training.max_steps",
            )
        is_finished = state is not None and (
            state.global_step >= steps or (state.max_steps == steps and self.report.is_patience_over(state))
        )
        if is_finished:
            self._load_from_checkpoint(str(checkpoint))
            self.state = state
            return
        recomputes_on_cpu = self.args.activation_checkpointing and self.args.device.type == "cpu"
        with memory_peak.blocks_mapped() if recomputes_on_cpu else contextlib.nullcontext():
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write under a temporary name, verify, rename; only then delete older ones. A full disk is noted."""
        self.report.phase("saving")
        folder, step = Path(self.args.output_dir), self.state.global_step
        self._check_weights_are_finite(step)
        try:
            with (
                checkpoints.writing(folder, step)
                if self.rank == 0
                else contextlib.nullcontext(folder / f".writing-{step}") as temporary
            ):
                self._barrier()
                self._write_checkpoint(model, trial, temporary)
                self._barrier()
            if self.rank == 0:
                path = checkpoints.complete(folder, step, self.train_dataset.content)
                self.report.saved(path, "checkpoint")
                protected = {self.state.best_global_step} if self.report.keep_best else frozenset()
                checkpoints.rotate(folder, self.checkpoints_to_keep, protected)
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.world_size > 1 or not checkpoints.disk_is_full(error):
                raise
            free = shutil.disk_usage(folder).free >> 20
            self.report.note(
                "The disk is full: this checkpoint was not written. The earlier one stands."
                if checkpoints.newest(folder)
                else "The disk is full: this checkpoint was not written, and there is no earlier one to resume from.",
                "warning",
                hint=f"Free some space: {folder} has {free} MiB left.",
            )
        self.report.phase("training")

    def _check_weights_are_finite(self, step: int) -> None:
        """End the run, on the checkpoint before, rather than write one from which every resume would be lost."""
        weights = trained_weights(self.model).values()
        is_finite = all(bool(torch.isfinite(distributed.to_local(weight)).all()) for weight in weights)
        if not all(distributed.gather(is_finite)):
            self.report.check_finite(float("nan"), step, "weights")

    def _write_checkpoint(self, model: Any, trial: Any, temporary: Path) -> None:
        output_dir = self.args.output_dir
        self.args.output_dir = str(temporary)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = output_dir
        written = temporary / f"checkpoint-{self.state.global_step}"
        if self.rank == 0 and self.world_size > 1:
            shutil.copy(written / "rng_state_0.pth", written / "rng_state.pth")

    def _barrier(self) -> None:
        if self.world_size > 1:
            torch.distributed.barrier()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained of the model into a checkpoint; of a sharded model each process its shard."""
        os.makedirs(output_dir, exist_ok=True)
        if self.sharded:
            sharding.save_shard(self.model, self.optimizer, Path(output_dir))
        elif self.rank == 0:
            self.method.save_checkpoint(self.accelerator.unwrap_model(self.model), Path(output_dir))
            if self.objective is not None:
                self.objective.save(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read the trained weights; optimizer, schedule and random states are read by the Trainer."""
        self.resumed_from = Path(resume_from_checkpoint)
        if self.sharded:
            sharding.load_shard(self.model, self.resumed_from)
        else:
            self.method.load_checkpoint(self.accelerator.unwrap_model(self.model), self.resumed_from)
            if self.objective is not None:
                self.objective.load(self.resumed_from)

    def load_best_weights(self) -> int:
        """Load the best checkpoint (see Report.on_evaluate), where there is one; returns the step of the weights."""
        best_step = self.state.best_global_step
        best = Path(self.args.output_dir) / f"checkpoint-{best_step}"
        if not best_step or best_step == self.state.global_step or checkpoints.faults(best):
            return self.state.global_step
        self._load_from_checkpoint(str(best), self.model_wrapped)
        least = "the least of held-out loss and forgetting" if self.report.by_frontier else "the lowest held-out loss"
        self.report.note(f"The result is the checkpoint at step {best_step}: it has {least}.")
        return best_step
