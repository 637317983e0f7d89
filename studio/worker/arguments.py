"""An order in the words of transformers' TrainingArguments."""

from __future__ import annotations

from typing import Any

from studio.config import RunConfig
from studio.resolve import Resolved
from studio.run import Run
from studio.trackers import PROJECT


def arguments_of(run: Run, config: RunConfig, resolved: Resolved) -> dict[str, Any]:
    """What order and resolved settings say alone; train.make_trainer adds what depends on rows and devices."""
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
        "project": PROJECT,
        "run_name": run.id,
        "report_to": list(training.report_to) or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": resolved.device == "cuda",
        "dataloader_num_workers": resolved.workers,
    }
