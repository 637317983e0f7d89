"""The Trainer of transformers with three things of ours: the loss, the batches, and checkpoints that are complete or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from studio import checkpoints
from studio.worker.loss import chunked
from studio.worker.report import Report


class StudioTrainer(Trainer):
    """method: the tuning method; report: our callback; loss: "chunked" or "full"."""

    def __init__(self, *, method: Any, report: Report, loss: str, keep: int, fingerprint: str, **options: Any):
        super().__init__(**options)
        self.method, self.report, self.loss_kind, self.keep, self.fingerprint = method, report, loss, keep, fingerprint
        self.model_accepts_loss_kwargs = True  # our loss divides by the items of the whole effective batch

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if model.training:
            self.report.tokens += int(inputs.pop("tokens", 0)) or inputs["input_ids"].numel()
        inputs.pop("tokens", None)
        if self.loss_kind == "full":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = chunked(model, inputs, num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None) -> tuple:
        """Evaluation needs the loss alone."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """With the method's own parameter groups, where it has some (LoRA+)."""
        target = self.model if model is None else model
        groups = self.method.groups(self.accelerator.unwrap_model(target), self.args.learning_rate)
        if self.optimizer is None and groups:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, target)
            self.optimizer = kind([{"weight_decay": self.args.weight_decay, **group} for group in groups], **options)
        return super().create_optimizer(model)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """What a checkpoint needs of the model: the trained tensors as they are."""
        if self.args.should_save:
            self.method.keep(self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.method.restore(self.accelerator.unwrap_model(self.model if model is None else model), Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Written beside, verified, completed by a manifest, renamed into place; older ones go only then."""
        self.report.phase("saving")
        folder = Path(self.args.output_dir)
        with checkpoints.writing(folder, self.state.global_step) as temporary:
            self.args.output_dir, kept = str(temporary), self.args.output_dir
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = kept
        path = checkpoints.complete(folder, self.state.global_step, self.fingerprint)
        self.report.say("saved", step=self.state.global_step, path=path.name, what="checkpoint")
        checkpoints.rotate(folder, self.keep)
        self.report.phase("training")
