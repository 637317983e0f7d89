"""Checkpoints complete or absent: where the Trainer's public interface does not reach, and so two of its private methods are set aside.

`_save_checkpoint` writes what transformers writes, but under a temporary name, looked through and renamed when whole. `_load_from_checkpoint` reads
the trained tensors as the method wrote them. Both are called by the Trainer; transformers is held to one minor version for them.
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

from studio.runs import checkpoints
from studio.worker import distributed, sharding


class CheckpointedTrainer(Trainer):
    """Its heir sets `method`, `report`, `keep` (checkpoints kept), `split` (the model is split over the processes), `rank` and `world`."""

    resumed: Path | None = None  # the checkpoint that weights were read from last

    def train_from(self, checkpoint: Path | None, steps: int) -> None:
        """Train, from a checkpoint where there is one. From that of the last step nothing is left to train: the Trainer would take one step more.

        The last step of a run that stops early is the one at which it did, unless its goal was moved since.
        """
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else None
        over = state is not None and (
            state.global_step >= steps or (state.max_steps == steps and self.report.patience_is_over(state))
        )
        if not over:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        else:
            self._load_from_checkpoint(str(checkpoint))
            self.state = state

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Written beside, verified, completed by a manifest, renamed into place; older ones go only then. A full disk costs only this one."""
        self.report.phase("saving")
        folder, step = Path(self.args.output_dir), self.state.global_step
        self._refuse_spoilt(step)
        try:
            with (
                checkpoints.writing(folder, step)
                if self.rank == 0
                else contextlib.nullcontext(folder / f".writing-{step}") as temporary
            ):
                self._together()
                self._write(model, trial, temporary)
                self._together()
            if self.rank == 0:
                path = checkpoints.complete(folder, step, self.train_dataset.content)
                self.report.saved(path, "checkpoint")
                checkpoints.rotate(
                    folder, self.keep, {self.state.best_global_step} if self.report.keep_best else frozenset()
                )
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.world > 1 or not checkpoints.disk_is_full(error):
                raise
            self.report.note(
                "The disk is full: this checkpoint was not written. The earlier one stands.",
                "warning",
                hint="Free some space.",
            )
        self.report.phase("training")

    def _refuse_spoilt(self, step: int) -> None:
        """A checkpoint with a NaN in it would look whole, and every resume from it would be lost: the run ends here, on the one before."""
        weights = (
            getattr(weight, "to_local", lambda weight=weight: weight)()
            for weight in self.model.parameters()
            if weight.requires_grad
        )
        finite = all(bool(torch.isfinite(weight).all()) for weight in weights)
        if not all(distributed.gather(finite)):
            self.report.refuse_nan(float("nan"), step, "weights")

    def take_best(self) -> int:
        """Set the weights to those of the checkpoint with the lowest held-out loss; returns its step. Without one all stays as it is."""
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        if (
            not self.state.best_global_step
            or self.state.best_global_step == self.state.global_step
            or checkpoints.faults(best)
        ):
            return self.state.global_step
        self._load_from_checkpoint(str(best), self.model_wrapped)
        self.report.note(
            f"The result is the checkpoint at step {self.state.best_global_step}: it has the lowest held-out loss."
        )
        return self.state.best_global_step

    def _write(self, model: Any, trial: Any, temporary: Path) -> None:
        self.args.output_dir, kept = str(temporary), self.args.output_dir
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = kept
        inner = temporary / f"checkpoint-{self.state.global_step}"
        if self.rank == 0 and self.world > 1:
            shutil.copy(inner / "rng_state_0.pth", inner / "rng_state.pth")

    def _together(self) -> None:
        if self.world > 1:
            torch.distributed.barrier()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Of the model a checkpoint holds what is trained, as it is; of a split one each process its part."""
        os.makedirs(output_dir, exist_ok=True)
        if self.split:
            sharding.save_shard(self.model, self.optimizer, Path(output_dir))
        elif self.rank == 0:
            self.method.save_checkpoint(self.accelerator.unwrap_model(self.model), Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The trained weights alone; optimizer, schedule and random states are read by the Trainer."""
        self.resumed = Path(resume_from_checkpoint)
        if self.split:
            sharding.load_shard(self.model, self.resumed)
        else:
            self.method.load_checkpoint(self.accelerator.unwrap_model(self.model), self.resumed)
