"""The training step: rows -> micro-batches -> loss -> backward.

Read `get_train_dataloader` (collate), `training_step` (forward and backward) and `micro_batch_loss` (loss.py).
transformers' Trainer is the loop around them: epochs, clipping, optimizer and schedule, fp16's loss scale, DDP,
logging, `report_to`, and the bookkeeping of a resume. An item of its loader is a whole optimizer step, a list of
micro-batches, so that the Trainer itself never accumulates gradients and its steps are the run's. Only its public
methods are overridden here; the two private ones are in checkpointing.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from studio.config import RunConfig
from studio.errors import ModelError
from studio.resolve import Resolved
from studio.worker import fast_lora, memory, schedule, sharding
from studio.worker.batches import EffectiveBatchSampler, EvalBatches, MicroBatchCollator, StepLoader
from studio.worker.checkpointing import CheckpointedTrainer
from studio.worker.grpo import GroupObjective, collate_prompts
from studio.worker.loss import context_length, loss
from studio.worker.packing import Layout, model_inputs, to_device
from studio.worker.preference import Metrics, Objective
from studio.worker.report import Report

PREFETCHED_STEPS = 4  # that a loader process prepares ahead


class StudioTrainer(CheckpointedTrainer):
    """The Trainer of an order. sharded: the model was split by sharding.py; options: the Trainer's own."""

    objective: Objective | None = None  # of a stage that compares answers

    def __init__(self, *, config: RunConfig, resolved: Resolved, report: Report, sharded: bool = False, **options: Any):
        self.sharded = sharded
        super().__init__(**options)
        self.method, self.report = config.method, report
        self.layout = Layout.of(resolved, context_length(self.model, config.virtual_tokens))
        self.effective_batch_size = resolved.effective
        self.loss_kind, self.dtype = resolved.loss, getattr(torch, resolved.dtype)
        self.checkpoints_to_keep = config.training.keep_checkpoints
        self.rank, self.world_size = self.args.process_index, self.args.world_size
        if not config.stage.is_supervised:
            self.objective = (GroupObjective if config.stage.generates else Objective)(config.stage, self)
        self.brake: Any = None  # worker/keep_general.py: the penalty of a step
        self._eval_batches: EvalBatches | None = None
        self._correct: list[torch.Tensor] | None = None  # of an evaluation: counts of targets that are the likeliest
        # The Trainer then neither wraps the model nor reduces its gradients.
        self.is_distributed_loading_by_transformers = sharded
        report.trainer = self
        self.remove_callback(PrinterCallback)  # the report prints already

    # -- the training step

    def get_train_dataloader(self) -> StepLoader:
        workers, stage = self.args.dataloader_num_workers, self.objective and self.objective.stage
        collator = MicroBatchCollator(self.layout, self.rank, self.world_size)
        return StepLoader(
            self.train_dataset,
            batch_sampler=EffectiveBatchSampler(
                len(self.train_dataset),
                self.effective_batch_size,
                self.args.seed,
                stage.steps_per_batch if stage else 1,
            ),
            collate_fn=collate_prompts if stage and stage.generates else collator,
            num_workers=workers,
            prefetch_factor=PREFETCHED_STEPS if workers else None,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def training_step(
        self, model: Any, micro_batches: list[dict[str, Any]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward of all micro-batches, then of the brake; returns this process's part of the loss.

        The loss is that per target token of the data, without the brake's penalty. The Trainer then clips the gradients
        and steps optimizer and schedule.
        """
        model.train()
        if hasattr(self.optimizer, "train") and callable(self.optimizer.train):
            self.optimizer.train()  # schedule-free optimizers keep two sets of weights
        num_tokens, total = micro_batches[0]["num_tokens"], torch.zeros((), device=self.args.device)
        with fast_lora.narrow_copies(model, self.dtype):
            if self.objective is not None:
                micro_batches = self.objective.start_step(model, micro_batches)
            for index, micro_batch in enumerate(micro_batches):
                is_last = index == len(micro_batches) - 1 and self.brake is None
                with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                    # Gradients are averaged over processes, num_items_in_batch is that of all: hence × world_size.
                    scale = self.world_size / max(1, micro_batch["num_items_in_batch"])
                    batch_loss = self.micro_batch_loss(model, micro_batch) * scale
                    _refuse_no_gradient(self, batch_loss)
                    self.accelerator.backward(batch_loss)
                total += batch_loss.detach()
                # Its graph's small objects lie all over a CPU's heap, and would tear up what the next one needs.
                del batch_loss
            if self.brake is not None:
                penalty = self.brake(model, self.state.global_step)
                self.accelerator.backward(penalty)
                self.report.brake = penalty.detach()
        self.report.num_tokens += num_tokens
        return total

    def micro_batch_loss(self, model: Any, micro_batch: dict[str, Any]) -> torch.Tensor:
        """The loss of one micro-batch, summed over its target tokens, or over its pairs or verdicts."""
        return self.objective.loss(model, micro_batch) if self.objective else self.token_loss(model, micro_batch)

    def token_loss(self, model: Any, micro_batch: dict[str, Any]) -> torch.Tensor:
        """The cross entropy of one micro-batch, summed over its target tokens."""
        if self.objective is not None:
            return self.objective.token_loss(model, micro_batch)
        label_smoothing = self.args.label_smoothing_factor if model.training else 0.0
        target_positions = self.to_device(micro_batch.get("target_positions"))
        inputs = self.model_inputs(micro_batch)
        return loss(model, inputs, self.loss_kind, self.dtype, label_smoothing, target_positions, self._correct)

    def model_inputs(self, micro_batch: dict[str, Any]) -> dict[str, Any]:
        """What the model and the loss are given of a micro-batch, on the device."""
        return model_inputs(micro_batch, self.args.device)

    def to_device(self, value: Any) -> Any:
        return to_device(value, self.args.device)

    def first_inputs(self, steps: int = 8) -> Iterator[dict[str, Any]]:
        """Model inputs of the run's first steps, for a method whose initialization looks at the data."""
        for _, micro_batches in zip(range(steps), self.get_train_dataloader()):
            if "prompts" in micro_batches[0]:  # no answers yet: the prompts themselves
                prompts = micro_batches[0]["prompts"]
                micro_batches = MicroBatchCollator(self.layout)(
                    [{**row, "labels": row["input_ids"]} for row in prompts]
                )
            yield from map(self.model_inputs, micro_batches)

    # -- evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> EvalBatches:
        if eval_dataset is not None:
            return EvalBatches(eval_dataset, self.layout, self.rank, self.world_size)
        if self._eval_batches is None:
            self._eval_batches = EvalBatches(self.eval_dataset, self.layout, self.rank, self.world_size)
        return self._eval_batches

    def evaluation_loop(
        self, dataloader: Any, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """The mean loss and accuracy over all held-out targets of all processes; {} where the run is asked to stop."""
        self.report.phase("evaluating")
        model, objective = self.model_wrapped.eval(), self.objective
        if hasattr(self.optimizer, "eval") and callable(self.optimizer.eval):
            self.optimizer.eval()
        if isinstance(objective, GroupObjective):
            return objective.evaluate(model, self.eval_dataset, metric_key_prefix)
        kept, figures = objective and objective.metrics, {}  # of the training steps since the last log
        with torch.no_grad():
            if objective is not None:
                objective.metrics = Metrics(objective.stage)
                objective.start_step(model, list(dataloader))
            total = self._held_out_sums(model, dataloader)
        if total is not None and dataloader.num_items:
            mean, accuracy = (total / dataloader.num_items).tolist()
            figures = {"loss": mean, **(objective.metrics.take() if objective else {"accuracy": accuracy})}
        if objective is not None:
            objective.metrics = kept
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(self.eval_dataset))

    def _held_out_sums(self, model: Any, batches: EvalBatches) -> torch.Tensor | None:
        """[loss, targets that are the likeliest token], summed over the held-out rows of all processes; None where the
        run is asked to stop. Rows are measured fewer at a time where memory is short; without room alone, not at all.
        """

        def measure(numbers: Sequence[int]) -> torch.Tensor:
            self._correct = None if self.objective else []
            loss = self.micro_batch_loss(model, batches.collate(numbers)).float()
            correct, self._correct = sum(self._correct or ()), None
            return torch.stack([loss, torch.as_tensor(correct, device=loss.device, dtype=torch.float32)])

        def leave_out(number: int) -> torch.Tensor:
            left_out.append(number)
            batches.leave_out(number)
            return total.new_zeros(2)

        left_out: list[int] = []
        total = torch.zeros(2, device=self.args.device, dtype=torch.float32)
        for numbers in batches.groups():
            total += sum(memory.in_halves(measure, numbers, leave_out))
            if self.report.must_cut_evaluation_short():
                return None
        if left_out:
            self.report.note(
                f"Held-out rows without room in memory even alone: {len(left_out)} (the first: {left_out[0] + 1}). "
                "They are not measured from now on.",
                "warning",
            )
        return self.accelerator.reduce(total, "sum") if self.world_size > 1 else total

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """As the Trainer does, with the metrics of compared answers beside the loss."""
        if self.objective is not None and "loss" in logs:
            logs |= self.objective.metrics.take()
        super().log(logs, *args, **options)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's formula takes every weight for trained."""
        return 0

    # -- optimizer and schedule

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The method's parameter groups where it has some, else all that is trained."""
        groups = self.method.parameter_groups(self.model if model is None else model, self.args.learning_rate)
        if self.optimizer is not None or groups is None:
            super().create_optimizer(model)
        else:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = [{"weight_decay": self.args.weight_decay, **group} for group in groups]
            self.optimizer = optimizer_class(groups, **options)
        return sharding.shard_optimizer_state(self.optimizer, self) if self.sharded else self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = schedule.create_scheduler(
                self.args.lr_scheduler_type, optimizer or self.optimizer, warmup, num_training_steps
            )
            self.ordered_groups = schedule.ordered_groups(self.lr_scheduler)
        return self.lr_scheduler


def _refuse_no_gradient(trainer: StudioTrainer, loss: torch.Tensor) -> None:
    if not loss.requires_grad:
        raise ModelError(
            f"No gradient reaches what {trainer.method.label} trains in this {trainer.model.config.model_type} model.",
            "Take full fine-tuning, or another model.",
            "method.name",
        )
