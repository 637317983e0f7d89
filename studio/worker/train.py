"""python -m studio.worker.train RUN-FOLDER: one run, from order to result. Read `train` from top to bottom.

The training step itself is in trainer.py, its batches in batches.py, its loss in loss.py, checkpoints in
checkpointing.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed

from studio import auto, data, model, new_tokens, preflight, process, token_rows
from studio.base import shards, source
from studio.config import RunConfig
from studio.data.streaming import StreamedRows
from studio.device import devices
from studio.errors import OrderError
from studio.estimate import grown
from studio.evaluation.questions import Question, distinct
from studio.export import hf_files
from studio.home import write_atomic
from studio.method import is_cast_deferred, trained_weights
from studio.resolve import Resolved, resolve
from studio.run import Run
from studio.runs import checkpoints
from studio.talk.reference import check_base
from studio.tokens import Encoder
from studio.worker import (
    activation_checkpointing,
    adamw,
    attention,
    distributed,
    fast_lora,
    forgetting,
    fused_kernels,
    keep_general,
    layer_compile,
    loss_check,
    memory,
    origin,
    preference,
    probe,
    reward_head,
    sharding,
    torch_devices,
)
from studio.worker.batches import Layout, packing_statistics
from studio.worker.grpo import GroupObjective
from studio.worker.loss import unwrap
from studio.worker.report import Report
from studio.worker.samples import Samples
from studio.worker.trainer import StudioTrainer

LOOKED_AT_FOR_SAMPLES = 50  # held-out rows
ROWS_LOOKED_AT = 20_000  # for statistics and special tokens of a large data set


def main(run: Run) -> int:
    """Train. Exit code 0: the end event says finished or stopped; 1: it says failed, and why."""
    if distributed.world_size() > 1:
        process.die_with_parent(
            os.getppid()
        )  # torchrun's processes have sessions of their own, out of our supervisor's reach
        distributed.set_current_device()
    training = run.config.training
    report = Report(
        run, int(os.environ.get("STUDIO_ATTEMPT", 1)), training.early_stopping, training.keep_best, training.best_by
    )
    return report.run_to_exit_code(lambda: train(run, report))


def train(run: Run, report: Report) -> None:
    """Fetch the base model, prepare the data, load and wrap, check, train, save."""
    config, device = run.config, devices()[0]
    torch_devices.refuse_unusable(device)
    set_seed(config.training.seed)

    report.phase("fetching model")
    folder = source.fetch(config.model, report=lambda what, done, total: print(what, done, total, flush=True))
    checkpoint = checkpoints.newest(run.checkpoints)
    if checkpoint:
        check_base(run, folder)
    facts = model.facts(folder)
    config.method.refuse(facts, config.training, device)
    config.stage.refuse(config.method, config.data, config.training)
    preflight.check_new_tokens(config, facts)
    facts = grown(facts, config)
    for caution in config.method.cautions(config.training):
        report.note(caution, "warning")

    report.phase("reading data")
    encoder = Encoder.from_order(config.data, folder, num_virtual_tokens=config.virtual_tokens)
    if caution := encoder.end_of_turn_warning():
        report.note(caution, "warning")
    if note := encoder.new_tokens_note():
        report.note(note)
    rows = data.prepare(config.data, encoder, config.training.seed, ahead=True)
    _note_eval_rows(rows, config, report)
    for part in rows.record["sources"]:
        for caution in data.cautions(part.get("compared")):
            report.note(caution, "warning")

    report.phase("loading model")
    resolved = resolve(config, facts, device, rows.statistics, distributed.local_world_size())
    torch.set_num_threads(resolved.threads)
    torch.set_flush_denormal(True)  # denormal numbers are many times slower on a CPU, and add nothing
    resolved, base, tuned = _load_in_finite_precision(config, resolved, folder, rows, report)
    if config.start:
        origin.go_on(config, run, tuned, folder, encoder, report)
    if base.config._attn_implementation == "eager":
        resolved = resolved._replace(attention="eager")

    if checkpoint:
        checkpoints.refuse_other_data(checkpoint, rows.train.content)
    trainer = make_trainer(run, config, resolved, tuned, rows, report, resumes=bool(checkpoint))
    resolved = loss_check.check_loss(trainer, resolved)
    _prepare_objective(trainer, run, config, resolved, encoder, folder)
    report.emit(
        "plan",
        parameters=facts.parameters,
        base_fingerprint=shards.fingerprint(folder),
        **plan_fields(config, folder, resolved, tuned, rows),
    )
    _ask_base(trainer, encoder, config, resolved, rows, report)
    if questions := _sample_questions(config, encoder, rows):
        rounds = 1 + -(-resolved.steps // resolved.eval_every)
        seconds, has_start = resolved.expected.get("seconds"), config.start is not None
        report.samples = Samples(questions, encoder, trainer, seconds, rounds, has_start)
    if not checkpoint and not config.start:
        config.method.initialize(tuned, trainer.first_inputs)
    if resolved.compile:
        trainer.add_callback(layer_compile.CompileCallback(base, report))
    if resolved.probe:
        trainer.add_callback(probe.MemoryProbe(trainer))
    report.phase("training", from_step=int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    trainer.train_from(checkpoint, resolved.steps)
    _note_dropped_rows(rows, report)
    save_result(run, config, trainer, encoder, folder, report)


def _prepare_objective(
    trainer: StudioTrainer, run: Run, config: RunConfig, resolved: Resolved, encoder: Encoder, folder: Path
) -> None:
    """What a stage needs before the first step: the untouched base where no adapter can be switched off, rewards."""
    stage = config.stage
    asks_base = stage.uses_reference and not config.switches_adapter_off
    if isinstance(trainer.objective, GroupObjective):
        trainer.objective.prepare(encoder, config, resolved.steps, run.folder)
        if asks_base:
            reference = load_base(config, resolved, folder)
            if config.start and config.method.adapter:  # with the adapter that this run goes on from
                reference = wrap_base(config, resolved, reference)
                config.method.load_result(reference, origin.copied(run))
            trainer.objective.reference_model = reference.requires_grad_(False).eval()
    elif asks_base:
        preference.with_reference(trainer, run.folder)


def _ask_base(
    trainer: StudioTrainer, encoder: Encoder, config: RunConfig, resolved: Resolved, rows: data.Prepared, report: Report
) -> None:
    """What the base says to the general prompts, to measure forgetting by and to hold on to."""
    training = config.training
    if config.stage.scores:
        return
    measures = True if training.keep_best and training.best_by == "frontier" else training.forgetting
    report.forgetting = forgetting.start(trainer, encoder, resolved, measures, rows.statistics)
    trainer.brake = keep_general.start(trainer, encoder, training.keep_general, training.keep_general_by)


def _sample_questions(config: RunConfig, encoder: Encoder, rows: data.Prepared) -> list[Question]:
    """The sample prompts as ordered, else the first distinct questions of what is held out."""
    if config.training.sample_prompts:
        return [Question(text, [{"role": "user", "content": text}]) for text in config.training.sample_prompts]
    count = config.training.samples if len(rows.eval) and not config.stage.scores else 0
    if not count or not distributed.is_main():
        return []
    few = data.held_out(config.data, encoder, config.training.seed, LOOKED_AT_FOR_SAMPLES)
    return distinct(few, count, config.data.train_on == "last")


def _load_in_finite_precision(
    config: RunConfig, resolved: Resolved, folder: Path, rows: data.Prepared, report: Report
) -> tuple[Resolved, Any, Any]:
    """(resolved, base, tuned), in float32 where fp16 cannot hold this model's numbers.

    Raises OrderError where fp16 was ordered and cannot.
    """
    base, tuned = _load_and_wrap(config, resolved, folder)
    report.precision = resolved.dtype
    device = next(tuned.parameters()).device
    if resolved.dtype != "float16" or loss_check.is_finite(tuned, rows.train.first(4), torch.float16, device):
        return resolved, base, tuned
    if config.training.precision == "fp16":
        raise OrderError(
            "This model's numbers go beyond what fp16 holds: its loss is not a number before the first step.",
            "Set training.precision to auto: it then computes in float32.",
            "training.precision",
        )
    why = "this model's numbers go beyond what fp16 holds"
    report.note(f"Computed in float32: {why}. That is slower, and the base takes twice the memory.", "warning")
    report.precision = "float32"
    resolved = resolved._replace(dtype="float32", autocast=None, why={**resolved.why, "precision": why})
    del base, tuned
    memory.empty_cache()
    set_seed(config.training.seed)
    return resolved, *_load_and_wrap(config, resolved, folder)


def _load_and_wrap(config: RunConfig, resolved: Resolved, folder: Path) -> tuple[Any, Any]:
    """(base model, the model that the method makes of it), on the device.

    The base is moved before it is wrapped: what wrapping adds and computes, partly in float32, is then on the device
    too.
    """
    base = load_base(config, resolved, folder)
    return base, wrap_base(config, resolved, base)


def attention_kernel(config: RunConfig, resolved: Resolved) -> str | None:
    """The attention that a base is loaded with; None: transformers' own choice, SDPA or eager where a family has no
    SDPA.
    """
    attention.register()
    kernel = attention.PACKED_ATTENTION if resolved.attention == "sdpa" and not resolved.masked else resolved.attention
    return None if kernel == "sdpa" and config.training.attention == "auto" else kernel


def load_base(config: RunConfig, resolved: Resolved, folder: Path) -> Any:
    """The base model on the device, with rows for the order's new tokens."""
    kernel, dtype = attention_kernel(config, resolved), getattr(torch, resolved.dtype)
    as_stored = sharding.may_shard(config) and config.method.quantized() is None and resolved.weights == "float32"
    base = config.method.load(folder, "auto" if as_stored else dtype, attn_implementation=kernel)
    if resolved.fused_kernels:
        fused_kernels.fuse(base)
    base = token_rows.add_rows(base, new_tokens.assign_ids(folder, config.data.new_tokens))
    if sharding.may_shard(config):
        base.defer_float32_cast = True  # it need not fit on one device, nor in 32 bits on the host of all processes
        return sharding.as_stored(base, dtype) if as_stored else base
    return distributed.to_device(base, resolved.device)


def wrap_base(config: RunConfig, resolved: Resolved, base: Any) -> Any:
    """The model that the method makes of a base. What starts at random does so from the order's seed."""
    set_seed(config.training.seed)
    try:
        tuned = config.method.wrap(base)
    except (ValueError, LookupError, TypeError, AttributeError, NotImplementedError) as error:  # peft's own refusals
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        raise OrderError(
            f"{config.method.label} cannot be put on this {base.config.model_type} model: {reason}.",
            "Take another method, or other settings of this one.",
            "method.name",
        ) from error
    if resolved.weights == "bfloat16":
        adamw.cast_trained_to_bf16(tuned).defer_float32_cast = False
    if not resolved.compile:  # which fuses by itself, and stops at functions of our own
        fast_lora.speed_up_lora(tuned, resolved.autocast is not None)
    return reward_head.add(tuned) if config.stage.scores else tuned


def _note_eval_rows(rows: data.Prepared, config: RunConfig, report: Report) -> None:
    """Where only some of the held-out rows are evaluated on, say how they were chosen."""
    evaluated = rows.record["eval"]
    if evaluated.get("of", 0) > config.data.eval_rows:
        others = "not used" if isinstance(config.data.eval, str) else "trained on"
        report.note(
            f"Measured on are {evaluated['rows']} of the {evaluated['of']} rows of the held-out data, spread over "
            f"short and long ones; the others are {others}. data.eval_rows sets how many."
        )


def _note_dropped_rows(rows: data.Prepared, report: Report) -> None:
    """Of rows that were encoded during training: those dropped after the plan was written."""
    late = rows.train.finished() if isinstance(rows.train, StreamedRows) else None
    if late and late["dropped"]:
        counts = "; ".join(f"{kind}: {dropped['count']}" for kind, dropped in late["dropped"].items())
        report.note(f"Rows that could not be trained on: {counts}.", data=late)


def make_trainer(
    run: Run, config: RunConfig, resolved: Resolved, tuned: Any, rows: data.Prepared, report: Report, resumes: bool
) -> StudioTrainer:
    training, evaluates, dtype = config.training, len(rows.eval) > 0, getattr(torch, resolved.dtype)
    sharded = distributed.world_size() > 1 and sharding.strategy(config, tuned) == "fsdp"
    optimizer = sharding.supported_optimizer(resolved.optimizer, report) if sharded else resolved.optimizer
    rounded_adamw = None
    if optimizer == auto.ROUNDING:
        optimizer = "adamw_torch"
        rounded_adamw = (adamw.RoundedAdamW, {"lr": config.learning_rate, "seed": training.seed})
    arguments = (sharding.ShardedTrainingArguments if sharded else TrainingArguments)(
        output_dir=str(run.checkpoints),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or (resolved.steps if config.stage.steps_per_batch > 1 else -1),
        per_device_train_batch_size=resolved.effective,
        gradient_accumulation_steps=1,  # the loader's items are whole steps
        learning_rate=config.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        neftune_noise_alpha=training.neftune,
        label_smoothing_factor=training.label_smoothing,
        optim=optimizer,
        bf16=resolved.autocast == "bfloat16",
        fp16=resolved.autocast == "float16",
        use_cpu=resolved.device == "cpu",
        activation_checkpointing=resolved.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if resolved.checkpointing else None,
        seed=training.seed,
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=resolved.eval_every,
        eval_on_start=evaluates and not resumes,
        save_strategy="steps",
        save_steps=resolved.save_every,
        save_total_limit=None,
        report_to=list(training.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=resolved.device == "cuda",
        dataloader_num_workers=resolved.workers,
        **sharding.distributed_arguments(tuned),
    )
    if sharded:
        sharding.shard_model(tuned, arguments.device, dtype)
    elif is_cast_deferred(tuned):
        sharding.cast_deferred(distributed.to_device(tuned, resolved.device), tuned, dtype)
    callbacks: list[Any] = [report]
    if resolved.checkpointing:
        callbacks.append(activation_checkpointing.FirstLayersOnly(unwrap(tuned), resolved.checkpointed_layers))
    return StudioTrainer(
        method=config.method,
        report=report,
        layout=_layout(resolved),
        effective_batch_size=resolved.effective,
        loss_kind=sharding.supported_loss(resolved.loss, tuned, report),
        checkpoints_to_keep=training.keep_checkpoints,
        dtype=dtype,
        sharded=sharded,
        optimizer_cls_and_kwargs=rounded_adamw,
        model=tuned,
        args=arguments,
        stage=config.stage,
        train_dataset=_with_stage(rows.train, config),
        eval_dataset=_with_stage(rows.eval, config) if evaluates else None,
        callbacks=callbacks,
    )


def _with_stage(rows: Any, config: RunConfig) -> Any:
    """The rows, with what the stage adds to each."""
    unchanged = config.stage.is_supervised or config.stage.generates
    return rows if unchanged else preference.PreferenceRows(rows, config.stage.mismatched)


def _layout(resolved: Resolved) -> Layout:
    return Layout(resolved.packed, resolved.micro_batch_tokens, resolved.batch_size)


def plan_fields(config: RunConfig, folder: Path, resolved: Resolved, tuned: Any, rows: data.Prepared) -> dict[str, Any]:
    """What is known before the first step."""
    first_rows = rows.train.first(ROWS_LOOKED_AT)
    added = new_tokens.assign_ids(folder, config.data.new_tokens).ids
    return {
        "steps": resolved.steps,
        "epochs": config.training.epochs,
        "rows": len(rows.train),
        "eval_rows": len(rows.eval),
        "trainable": sum(weight.numel() for weight in trained_weights(tuned).values()),
        **({"new_tokens": list(added)} if added else {}),
        "effective_batch": resolved.effective,
        "processes": distributed.world_size(),
        **resolved.as_event(),
        **packing_statistics(first_rows, _layout(resolved), resolved.effective, config.training.seed),
        "stage": config.stage.name,
        "data": rows.record,
        "statistics": rows.statistics,
    }


def save_result(
    run: Run, config: RunConfig, trainer: StudioTrainer, encoder: Encoder, base: Path, report: Report
) -> None:
    """Write model/ with its manifest last, then the end event."""
    if report.stopping == "discard":
        peak = memory.peak_memory()
        report.emit("end", state="stopped", cause="Stopped and discarded as asked.", peak_memory=peak)
        return
    report.phase("saving")
    step = trainer.load_best_weights() if config.training.keep_best else trainer.state.global_step
    if report.forgetting is not None and report.stopping is None:
        report.forgetting(step, final=True)
    full_model = sharding.gather_full_model(trainer)
    if distributed.is_main():
        added = new_tokens.assign_ids(base, config.data.new_tokens)
        with checkpoints.replacing(run.result) as result:
            config.method.save_result(full_model, result)
            if config.stage.scores:
                reward_head.save(full_model, result)
            hf_files.copy_tokenizer(encoder.tokenizer_folder, result, encoder.template.text)
            if not config.method.adapter:
                hf_files.write_config(
                    base,
                    result,
                    dtype=str(full_model.config.dtype).removeprefix("torch."),
                    vocabulary=added.size if added.size > model.facts(base).rows else None,
                )
            manifest = {
                "base": str(base),
                "base_fingerprint": shards.fingerprint(base),
                "model": config.model.model_dump(),
                "method": config.method.model_dump(mode="json"),
                **({} if config.stage.is_supervised else {"stage": config.stage.model_dump(mode="json")}),
                **({"start": config.start} if config.start else {}),
                "template": encoder.template.name,
                "stop": encoder.template.stop_strings,
                "step": step,
                "special_answers": special_answers(trainer.train_dataset, encoder),
                **({"own_tokenizer": True, "new_tokens": added.ids} if added.rows else {}),
            }
            write_atomic(result / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
        report.saved(run.result, "model")
    stopped = report.stopping is not None
    report.emit(
        "end",
        state="stopped" if stopped else "finished",
        cause="Stopped as asked; the model so far is kept." if stopped else None,
        peak_memory=max(distributed.gather(memory.peak_memory())),
        memory_by_phase=report.record_peak(),
        step=step,
    )


def special_answers(rows: Any, encoder: Encoder) -> list[int]:
    """Special tokens, other than the ends of turns, that are targets in the first rows: the chat shows them."""
    tokenizer, template = encoder.tokenizer, encoder.template
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    special -= {tokenizer.token_to_id(text) for text in (*template.stop_strings, *template.special.values())}
    if not special:
        return []
    return sorted(special & {label for row in rows.first(ROWS_LOOKED_AT) for label in row["labels"]})


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
