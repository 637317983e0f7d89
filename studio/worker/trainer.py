"""The step of training on one page: rows -> micro-batches -> loss -> backward. Read `get_train_dataloader`, `training_step`, `piece_loss`.

transformers' Trainer is the loop around it: epochs, clipping, optimizer and schedule, fp16's loss scale, DDP, logging, `report_to`, the bookkeeping
of a resume. An item of its loader is a whole optimizer step, a list of micro-batches, which `training_step` goes through: the Trainer itself never
accumulates, and its step count is the run's. All that is set aside here is public; its two private methods that are stand in checkpointing.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from studio.worker import schedule, sharding
from studio.worker.batches import EffectiveBatchSampler, EvalBatches, Layout, MicroBatchCollator, StepLoader
from studio.worker.checkpointing import CheckpointedTrainer
from studio.worker.loss import loss
from studio.worker.report import Report

AHEAD = 4  # steps that a loader process prepares before they are asked for
NOT_FOR_THE_MODEL = ("num_items_in_batch", "num_tokens", "target_positions")  # of a piece, what the model is not given


class StudioTrainer(CheckpointedTrainer):
    """method: the tuning method; report: our callback; layout: of the pieces; kind: "chunked" or "full" loss; keep: checkpoints kept;
    dtype: that of the products; split: the model is split over the processes (sharding.py)."""

    def __init__(
        self,
        *,
        method: Any,
        report: Report,
        layout: Layout,
        effective: int,
        kind: str,
        keep: int,
        dtype: torch.dtype,
        split: bool = False,
        **options: Any,
    ):
        self.split = split
        super().__init__(**options)
        self._held: EvalBatches | None = None
        self.method, self.report, self.layout, self.effective = method, report, layout, effective
        self.kind, self.keep, self.dtype = kind, keep, dtype
        self.rank, self.world = self.args.process_index, self.args.world_size
        self.is_distributed_loading_by_transformers = (
            split  # the Trainer then neither wraps the model nor reduces its gradients
        )
        report.trainer = self
        self.remove_callback(PrinterCallback)  # the report prints already

    # -- what a step sees

    def get_train_dataloader(self) -> StepLoader:
        order = EffectiveBatchSampler(len(self.train_dataset), self.effective, self.args.seed)
        workers = self.args.dataloader_num_workers
        return StepLoader(
            self.train_dataset,
            batch_sampler=order,
            collate_fn=MicroBatchCollator(self.layout, self.rank, self.world),
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> EvalBatches:
        """The held-out rows in pieces: this process's share of them, divided once for all evaluations."""
        if eval_dataset is not None:
            return EvalBatches(eval_dataset, self.layout, self.rank, self.world)
        if self._held is None:
            self._held = EvalBatches(self.eval_dataset, self.layout, self.rank, self.world)
        return self._held

    def training_step(
        self, model: Any, micro_batches: list[dict[str, Any]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward through all pieces of a step; returns the step's loss per trained token, as this process saw it."""
        model.train()
        if hasattr(self.optimizer, "train") and callable(self.optimizer.train):
            self.optimizer.train()  # optimizers without a schedule keep two sets of weights
        total = torch.zeros((), device=self.args.device)
        for place, micro_batch in enumerate(micro_batches):
            last = place == len(micro_batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                # Processes average their gradients, and items are those of all processes: hence × world.
                part = self.micro_batch_loss(model, micro_batch) * (
                    self.world / max(1, micro_batch["num_items_in_batch"])
                )
                self.accelerator.backward(part)
            total += part.detach()
        self.report.tokens += micro_batches[0]["num_tokens"]
        return total

    def micro_batch_loss(self, model: Any, micro_batch: dict[str, Any]) -> torch.Tensor:
        """The loss of one piece, summed over its trained tokens."""
        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        target_positions = micro_batch.get("target_positions")
        return loss(
            model,
            self.model_inputs(micro_batch),
            self.kind,
            self.dtype,
            smoothing,
            None if target_positions is None else self._to_device(target_positions),
        )

    def model_inputs(self, micro_batch: dict[str, Any]) -> dict[str, Any]:
        """What the model is given of a piece, on the device."""
        return {key: self._to_device(value) for key, value in micro_batch.items() if key not in NOT_FOR_THE_MODEL}

    def _to_device(self, value: Any) -> Any:
        """On the device; from pinned memory without waiting for what the device has still to do."""
        return value.to(self.args.device, non_blocking=True) if isinstance(value, torch.Tensor) else value

    def inputs(self, most: int = 8) -> Iterator[dict[str, Any]]:
        """Some of the run's first batches on the device, for a method whose start looks at the data."""
        for micro_batches, _ in zip(self.get_train_dataloader(), range(most)):
            yield from map(self.model_inputs, micro_batches)

    # -- evaluation

    def evaluation_loop(
        self, dataloader: Any, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """The mean loss over all trained tokens held out: batches of unlike length weigh what they hold."""
        self.report.phase("evaluating")
        model = self.model_wrapped
        model.eval()
        if hasattr(self.optimizer, "eval") and callable(self.optimizer.eval):
            self.optimizer.eval()
        total = torch.zeros((), device=self.args.device)
        with torch.no_grad():
            for micro_batch in dataloader:
                total += self.micro_batch_loss(model, micro_batch)
                if self.report.cannot_wait():
                    return EvalLoopOutput(predictions=None, label_ids=None, metrics={}, num_samples=0)
        if self.world > 1:
            total = self.accelerator.reduce(total, "sum")
        mean = total.item() / max(1, dataloader.num_target_tokens)
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics={f"{metric_key_prefix}_loss": mean},
            num_samples=len(self.eval_dataset),
        )

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's formula takes every weight for trained."""
        return 0

    # -- optimizer

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The method's own parameter groups where it has some, else all that is trained; weight decay as the Trainer does it."""
        chosen = self.method.parameter_groups(self.model if model is None else model, self.args.learning_rate)
        if self.optimizer is not None or chosen is None:
            super().create_optimizer(model)
        else:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = kind([{"weight_decay": self.args.weight_decay, **group} for group in chosen], **options)
        return sharding.shard_optimizer_state(self.optimizer, self) if self.split else self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """See schedule.py."""
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = schedule.create_scheduler(
                self.args.lr_scheduler_type, optimizer or self.optimizer, warmup, num_training_steps
            )
        return self.lr_scheduler
