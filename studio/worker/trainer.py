"""The Trainer of transformers with four things of ours: what a step sees, the loss, the evaluation, and checkpoints complete or absent.

An item of its loader is a whole optimizer step, a list of pieces; `training_step` goes through them. So the Trainer itself never
accumulates, and its step count is ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from studio.runs import checkpoints
from studio.worker import schedule, sharding, together
from studio.worker.batches import Laid, Layout, Order, Pieces, Steps
from studio.worker.loss import loss
from studio.worker.report import Report

AHEAD = 4  # steps that a loader process prepares before they are asked for
SAID = ("items", "seen", "places")  # of a piece, what the model is not given


class StudioTrainer(Trainer):
    """method: the tuning method; report: our callback; layout: of the pieces; kind: "chunked" or "full" loss; keep: checkpoints kept;
    dtype: that of the products; split: the model is split over the processes (sharding.py)."""

    def __init__(self, *, method: Any, report: Report, layout: Layout, effective: int, kind: str, keep: int, dtype: torch.dtype,
                 split: bool = False, **options: Any):
        self.split = split
        super().__init__(**options)
        self._held: Laid | None = None
        self.method, self.report, self.layout, self.effective = method, report, layout, effective
        self.kind, self.keep, self.dtype = kind, keep, dtype
        self.rank, self.world = self.args.process_index, self.args.world_size
        self.is_distributed_loading_by_transformers = split  # the Trainer then neither wraps the model nor reduces its gradients
        report.trainer = self
        self.remove_callback(PrinterCallback)  # the report prints already

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if not self.split:
            super()._move_model_to_device(model, device)

    # -- what a step sees

    def get_train_dataloader(self) -> Steps:
        order = Order(len(self.train_dataset), self.effective, self.args.seed)
        workers = self.args.dataloader_num_workers
        return Steps(self.train_dataset, batch_sampler=order, collate_fn=Pieces(self.layout, self.rank, self.world), num_workers=workers,
                     prefetch_factor=AHEAD if workers else None, pin_memory=self.args.dataloader_pin_memory)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Laid:
        """The held-out rows in pieces: this process's share of them, divided once for all evaluations."""
        if eval_dataset is not None:
            return Laid(eval_dataset, self.layout, self.rank, self.world)
        if self._held is None:
            self._held = Laid(self.eval_dataset, self.layout, self.rank, self.world)
        return self._held

    def training_step(self, model: Any, pieces: list[dict[str, Any]], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward through all pieces of a step; returns the step's loss per trained token, as this process saw it."""
        model.train()
        if hasattr(self.optimizer, "train") and callable(self.optimizer.train):
            self.optimizer.train()  # optimizers without a schedule keep two sets of weights
        total = torch.zeros((), device=self.args.device)
        for place, piece in enumerate(pieces):
            last = place == len(pieces) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                # Processes average their gradients, and items are those of all processes: hence × world.
                part = self.piece_loss(model, piece) * (self.world / max(1, piece["items"]))
                self.accelerator.backward(part)
            total += part.detach()
        self.report.tokens += pieces[0]["seen"]
        return total

    def piece_loss(self, model: Any, piece: dict[str, Any]) -> torch.Tensor:
        """The loss of one piece, summed over its trained tokens."""
        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        places = piece.get("places")
        return loss(model, self.given(piece), self.kind, self.dtype, smoothing, None if places is None else self._there(places))

    def given(self, piece: dict[str, Any]) -> dict[str, Any]:
        """What the model is given of a piece, on the device."""
        return {key: self._there(value) for key, value in piece.items() if key not in SAID}

    def _there(self, value: Any) -> Any:
        """On the device; from pinned memory without waiting for what the device has still to do."""
        return value.to(self.args.device, non_blocking=True) if isinstance(value, torch.Tensor) else value

    def inputs(self, most: int = 8) -> Iterator[dict[str, Any]]:
        """Some of the run's first batches on the device, for a method whose start looks at the data."""
        for pieces, _ in zip(self.get_train_dataloader(), range(most)):
            yield from map(self.given, pieces)

    # -- evaluation

    def evaluation_loop(self, dataloader: Any, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> EvalLoopOutput:
        """The mean loss over all trained tokens held out: batches of unlike length weigh what they hold."""
        self.report.phase("evaluating")
        model = self.model_wrapped
        model.eval()
        if hasattr(self.optimizer, "eval") and callable(self.optimizer.eval):
            self.optimizer.eval()
        total = torch.zeros((), device=self.args.device)
        with torch.no_grad():
            for piece in dataloader:
                total += self.piece_loss(model, piece)
                if self.report.cannot_wait():
                    return EvalLoopOutput(predictions=None, label_ids=None, metrics={}, num_samples=0)
        if self.world > 1:
            total = self.accelerator.reduce(total, "sum")
        mean = total.item() / max(1, dataloader.trained)
        return EvalLoopOutput(predictions=None, label_ids=None, metrics={f"{metric_key_prefix}_loss": mean}, num_samples=len(self.eval_dataset))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        return "eval_loss" in metrics and super()._determine_best_metric(metrics, trial)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's formula takes every weight for trained."""
        return 0

    # -- optimizer

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The method's own parameter groups where it has some, else all that is trained; weight decay as the Trainer does it."""
        chosen = self.method.groups(self.model if model is None else model, self.args.learning_rate)
        if self.optimizer is not None or chosen is None:
            return super().create_optimizer(model)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = kind([{"weight_decay": self.args.weight_decay, **group} for group in chosen], **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """See schedule.py."""
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = schedule.scheduler(self.args.lr_scheduler_type, optimizer or self.optimizer, warmup, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Of a split model the norm comes in parts: the curve wants the whole."""
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    # -- checkpoints

    def go_on(self, checkpoint: Path | None, steps: int) -> None:
        """Train, from a checkpoint where there is one. From that of the last step nothing is left to train: the Trainer would take one step more.

        The last step of a run that stops early is the one at which it did, unless its goal was moved since.
        """
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else None
        over = state is not None and (state.global_step >= steps or (state.max_steps == steps and self.report.patience_is_over(state)))
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
            with checkpoints.writing(folder, step) if self.rank == 0 else contextlib.nullcontext(folder / f".writing-{step}") as temporary:
                self._together()
                self._write(model, trial, temporary)
                self._together()
            if self.rank == 0:
                path = checkpoints.complete(folder, step, self.train_dataset.content)
                self.report.saved(path, "checkpoint")
                checkpoints.rotate(folder, self.keep, {self.state.best_global_step} if self.report.keep_best else frozenset())
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.world > 1 or not checkpoints.disk_is_full(error):
                raise
            self.report.note("The disk is full: this checkpoint was not written. The earlier one stands.", "warning", hint="Free some space.")
        self.report.phase("training")

    def _refuse_spoilt(self, step: int) -> None:
        """A checkpoint with a NaN in it would look whole, and every resume from it would be lost: the run ends here, on the one before."""
        weights = (getattr(weight, "to_local", lambda weight=weight: weight)() for weight in self.model.parameters() if weight.requires_grad)
        finite = all(bool(torch.isfinite(weight).all()) for weight in weights)
        if not all(together.gather(finite)):
            self.report.refuse_nan(float("nan"), step, "weights")

    def take_best(self) -> int:
        """Set the weights to those of the checkpoint with the lowest held-out loss; returns its step. Without one all stays as it is."""
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        if not self.state.best_global_step or self.state.best_global_step == self.state.global_step or checkpoints.faults(best):
            return self.state.global_step
        self._load_from_checkpoint(str(best), self.model_wrapped)
        self.report.note(f"The result is the checkpoint at step {self.state.best_global_step}: it has the lowest held-out loss.")
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
            sharding.keep(self.model, self.optimizer, Path(output_dir))
        elif self.rank == 0:
            self.method.keep(self.accelerator.unwrap_model(self.model), Path(output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.split:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.rank == 0:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, "scheduler.pt"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.split:
            sharding.restore(self.model, Path(resume_from_checkpoint))
        else:
            self.method.restore(self.accelerator.unwrap_model(self.model), Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.split or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            sharding.restore_optimizer(self.optimizer, Path(checkpoint))
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, "scheduler.pt"), weights_only=True))
        if checkpoint is not None:
            schedule.settle(getattr(self.lr_scheduler, "scheduler", self.lr_scheduler))
