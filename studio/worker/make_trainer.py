"""The trainer of an order: what it says in the words of transformers' TrainingArguments, its devices, its trackers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments

from studio import auto, trackers
from studio.config import RunConfig
from studio.method import is_cast_deferred
from studio.resolve import Resolved
from studio.run import Run
from studio.worker import adamw, decoder_layers, distributed, preference, sharding
from studio.worker.context import RunContext
from studio.worker.loss import unwrap
from studio.worker.report import Report
from studio.worker.trainer import StudioTrainer


def make_trainer(context: RunContext, resolved: Resolved, tuned: Any, resumes: bool) -> StudioTrainer:
    """The trainer of a wrapped model, which is sharded or cast as its devices ask for. resumes: from a checkpoint."""
    config, rows, report = context.config, context.rows, context.report
    training, evaluates, dtype = config.training, len(rows.eval) > 0, getattr(torch, resolved.dtype)
    sharded = distributed.world_size() > 1 and sharding.strategy(config, tuned) == "fsdp"
    optimizer = sharding.supported_optimizer(resolved.optimizer, report) if sharded else resolved.optimizer
    rounds = optimizer == auto.ROUNDING
    _prepare_trackers(context.run, training.report_to, report)
    arguments = (sharding.ShardedTrainingArguments if sharded else TrainingArguments)(
        **arguments_of(context.run, config, resolved),
        optim="adamw_torch" if rounds else optimizer,
        eval_strategy="steps" if evaluates else "no",
        eval_on_start=evaluates and not resumes,
        **sharding.distributed_arguments(tuned, resolved.device),
    )
    if sharded:
        sharding.shard_model(tuned, arguments.device, dtype)
    elif is_cast_deferred(tuned):
        sharding.cast_deferred(distributed.to_device(tuned, resolved.device), tuned, dtype)
    trainer = StudioTrainer(
        config=config,
        resolved=resolved._replace(loss=sharding.supported_loss(resolved.loss, tuned, report)),
        report=report,
        sharded=sharded,
        optimizer_cls_and_kwargs=(
            (adamw.RoundedAdamW, {"lr": config.learning_rate, "seed": training.seed}) if rounds else None
        ),
        model=tuned,
        args=arguments,
        train_dataset=_with_stage(rows.train, config),
        eval_dataset=_with_stage(rows.eval, config) if evaluates else None,
        callbacks=[report],
    )
    if resolved.checkpointing:
        trainer.add_callback(decoder_layers.FirstLayersOnly(unwrap(tuned), resolved.checkpointed_layers))
    return trainer


def _with_stage(rows: Any, config: RunConfig) -> Any:
    """The rows, with what the stage adds to each."""
    unchanged = config.stage.is_supervised or config.stage.generates
    return rows if unchanged else preference.PreferenceRows(rows, config.stage.mismatched)


def arguments_of(run: Run, config: RunConfig, resolved: Resolved) -> dict[str, Any]:
    """What order and resolved settings say alone; make_trainer adds what depends on rows and devices."""
    training = config.training
    return {
        "output_dir": str(run.checkpoints),
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or (resolved.steps if config.stage.steps_per_batch > 1 else -1),
        "per_device_train_batch_size": resolved.effective,
        "gradient_accumulation_steps": 1,  # the loader's items are whole steps
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "neftune_noise_alpha": training.neftune,
        "label_smoothing_factor": training.label_smoothing,
        "bf16": resolved.autocast == "bfloat16",
        "fp16": resolved.autocast == "float16",
        "use_cpu": resolved.device == "cpu",
        "activation_checkpointing": resolved.checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if resolved.checkpointing else None,
        "seed": training.seed,
        "logging_steps": training.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_steps": resolved.eval_every,
        "save_strategy": "steps",
        "save_steps": resolved.save_every,
        "save_total_limit": None,
        "project": trackers.PROJECT,
        "run_name": run.id,
        "report_to": list(training.report_to) or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": resolved.device == "cuda",
        "dataloader_num_workers": resolved.workers,
    }


def _prepare_trackers(run: Run, names: Sequence[str], report: Report) -> None:
    for name in names:
        if trackers.is_offline(name):
            report.note(trackers.offline_note(name, run.folder))
        os.environ.update(trackers.settings(name, run.folder))
        if name == "swanlab" and distributed.is_main():
            import swanlab  # transformers asks it for a run, and newer versions raise where there is none

            swanlab.init(project=trackers.PROJECT, experiment_name=run.id)
