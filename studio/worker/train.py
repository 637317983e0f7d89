"""python -m studio.worker.train RUN-FOLDER: one run, from order to result. Read `train` from top to bottom."""

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
from studio.export import hf_files
from studio.home import write_atomic
from studio.method import cast_trained_to_float32, is_cast_deferred
from studio.resolve import Resolved, resolve
from studio.run import Run
from studio.runs import checkpoints
from studio.tokens import Encoder
from studio.worker import (
    adamw,
    attention,
    distributed,
    fast_lora,
    layer_compile,
    loss_check,
    memory,
    probe,
    sharding,
    torch_devices,
)
from studio.worker.batches import Layout, packing_statistics
from studio.worker.memory import peak_memory
from studio.worker.report import Report
from studio.worker.samples import Samples
from studio.worker.trainer import StudioTrainer


def main(run: Run) -> int:
    """Carry the order out. Exit code 0: the end line says finished or stopped; 1: it says failed, and why."""
    if distributed.world_size() > 1:
        process.die_with_parent(
            os.getppid()
        )  # torchrun starts its processes in sessions of their own, out of reach of our supervisor
        distributed.set_current_device()
    training = run.config.training
    report = Report(run, int(os.environ.get("STUDIO_ATTEMPT", 1)), training.early_stopping, training.keep_best)
    return report.run_to_exit_code(lambda: train(run, report))


def train(run: Run, report: Report) -> None:
    """Fetch, read, load, wrap, train, save."""
    config, device = run.config, devices()[0]
    torch_devices.refuse_unusable(device)
    set_seed(config.training.seed)

    report.phase("fetching model")
    folder = source.fetch(config.model, report=lambda what, done, total: print(what, done, total, flush=True))
    facts = model.facts(folder)
    config.method.refuse(facts, config.training, device)
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

    _tell_held_out(rows, config, report)

    report.phase("loading model")
    resolved = resolve(config, facts, device, rows.statistics, distributed.local_world_size())
    torch.set_num_threads(resolved.threads)
    torch.set_flush_denormal(True)  # numbers next to zero cost a CPU many times an ordinary one, and say nothing
    resolved, base, tuned = _load_in_finite_precision(config, resolved, folder, rows, report)
    if base.config._attn_implementation == "eager":
        resolved = resolved._replace(attention="eager")

    resumed = checkpoints.newest(run.checkpoints)
    if resumed:
        checkpoints.refuse_other_data(resumed, rows.train.content)
    trainer = _trainer(run, config, resolved, tuned, rows, report, bool(resumed))
    resolved = loss_check.agreed(trainer, resolved)
    report.emit(
        "plan",
        parameters=facts.parameters,
        base_fingerprint=shards.fingerprint(folder),
        **_plan(config, folder, resolved, tuned, rows),
    )
    if config.training.sample_prompts:
        report.samples = Samples(config.training.sample_prompts, encoder, trainer)
    if not resumed:
        config.method.initialize(tuned, trainer.inputs)
    if resolved.compile:
        trainer.add_callback(layer_compile.CompileCallback(base, report))
    if config.training.probe:
        trainer.add_callback(probe.MemoryProbe(trainer))
    report.phase("training", from_step=int(resumed.name.rpartition("-")[2]) if resumed else 0)
    trainer.train_from(resumed, resolved.steps)
    _tell_left_out(rows, report)
    _finish(run, config, trainer, encoder, folder, report)


def _load_in_finite_precision(
    config: RunConfig, resolved: Resolved, folder: Path, rows: data.Prepared, report: Report
) -> tuple[Resolved, Any, Any]:
    """(settled, base, tuned); in float32 where fp16 cannot hold this model's numbers. Raises OrderError where fp16 was ordered."""
    base, tuned = _load_and_wrap(config, resolved, folder)
    report.precision = resolved.dtype
    place = next(tuned.parameters()).device
    if resolved.dtype != "float16" or probe.finite(tuned, rows.train.first(4), torch.float16, place):
        return resolved, base, tuned
    if config.training.precision == "fp16":
        raise OrderError(
            "This model's numbers go beyond what fp16 holds: its loss is not a number before the first step.",
            "Set training.precision to auto: it then computes in float32.",
            "training.precision",
        )
    why = "this model's numbers go beyond what fp16 holds"
    report.note(f"Computed in float32: {why}. That is slower, and the base takes twice the memory.", "warning")
    report.precision, resolved = (
        "float32",
        resolved._replace(dtype="float32", autocast=None, why={**resolved.why, "precision": why}),
    )
    del base, tuned
    memory.empty_cache()
    set_seed(config.training.seed)
    return resolved, *_load_and_wrap(config, resolved, folder)


def _load_and_wrap(config: RunConfig, resolved: Resolved, folder: Path) -> tuple[Any, Any]:
    """(base, base with what is trained on it), on the device: what wrapping makes and computes is made there, and in float32 only there."""
    attention.register()
    kernel = attention.PACKED_ATTENTION if resolved.attention == "sdpa" and not resolved.masked else resolved.attention
    if kernel == "sdpa" and config.training.attention == "auto":
        kernel = None  # transformers' own choice: SDPA, or eager where a family has no SDPA
    base = config.method.load(folder, getattr(torch, resolved.dtype), attn_implementation=kernel)
    base = token_rows.add_rows(base, new_tokens.assign_ids(folder, config.data.new_tokens))
    if sharding.may_shard(config):
        base.defer_float32_cast = True  # it need not fit on one device, nor in 32 bits on the host of all processes
    else:
        base = distributed.to_device(base, resolved.device)
    tuned = config.method.wrap(base)
    if resolved.weights == "bfloat16":
        adamw.narrow(tuned).defer_float32_cast = False
    fast_lora.speed_up_lora(tuned, resolved.autocast is not None)
    return base, tuned


def _tell_held_out(rows: data.Prepared, config: RunConfig, report: Report) -> None:
    """Of many rows only some are measured on: which choice that was."""
    held = rows.record["eval"]
    if held.get("of", 0) > config.data.eval_rows:
        others = "not used" if isinstance(config.data.eval, str) else "trained on"
        report.note(
            f"Measured on are {held['rows']} of the {held['of']} rows of the held-out data, spread over short and long ones; "
            f"the others are {others}. data.eval_rows sets how many."
        )


def _tell_left_out(rows: data.Prepared, report: Report) -> None:
    """Of rows that were encoded while the run went on: what the plan could not know yet."""
    late = rows.train.finished() if isinstance(rows.train, StreamedRows) else None
    if late and late["dropped"]:
        report.note(
            "Rows that could not be trained on: "
            + "; ".join(f"{kind}: {told['count']}" for kind, told in late["dropped"].items())
            + ".",
            data=late,
        )


def _trainer(
    run: Run, config: RunConfig, resolved: Resolved, tuned: Any, rows: data.Prepared, report: Report, resumed: bool
) -> StudioTrainer:
    training, held = config.training, len(rows.eval) > 0
    split = distributed.world_size() > 1 and sharding.strategy(config, tuned) == "fsdp"
    named = sharding.supported_optimizer(resolved.optimizer, report) if split else resolved.optimizer
    own = (adamw.RoundedAdamW, {"lr": config.learning_rate, "seed": training.seed}) if named == auto.ROUNDING else None
    arguments = (sharding.ShardedTrainingArguments if split else TrainingArguments)(
        output_dir=str(run.checkpoints),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=resolved.effective,
        gradient_accumulation_steps=1,  # the loader's items are whole steps
        learning_rate=config.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        neftune_noise_alpha=training.neftune,
        label_smoothing_factor=training.label_smoothing,
        optim="adamw_torch" if own else named,
        bf16=resolved.autocast == "bfloat16",
        fp16=resolved.autocast == "float16",
        use_cpu=resolved.device == "cpu",
        activation_checkpointing=resolved.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if resolved.checkpointing else None,
        seed=training.seed,
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if held else "no",
        eval_steps=resolved.eval_every,
        eval_on_start=held and not resumed,
        save_strategy="steps",
        save_steps=resolved.save_every,
        save_total_limit=None,
        report_to=list(training.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=resolved.device == "cuda",
        dataloader_num_workers=resolved.workers,
        **sharding.distributed_arguments(),
    )
    if split:
        sharding.shard_model(tuned, arguments.device, getattr(torch, resolved.dtype))
    elif is_cast_deferred(tuned):
        cast_trained_to_float32(distributed.to_device(tuned, resolved.device))
    return StudioTrainer(
        method=config.method,
        report=report,
        layout=Layout(resolved.packed, resolved.micro_batch_tokens, resolved.batch_size),
        effective=resolved.effective,
        kind=sharding.supported_loss(config, resolved.loss, tuned, report),
        keep=training.keep_checkpoints,
        dtype=getattr(torch, resolved.dtype),
        split=split,
        optimizer_cls_and_kwargs=own,
        model=tuned,
        args=arguments,
        train_dataset=rows.train,
        eval_dataset=rows.eval if held else None,
        callbacks=[report],
    )


def _plan(config: RunConfig, folder: Path, resolved: Resolved, tuned: Any, rows: data.Prepared) -> dict[str, Any]:
    """What is known before the first step."""
    trainable = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    layout = Layout(resolved.packed, resolved.micro_batch_tokens, resolved.batch_size)
    return {
        "steps": resolved.steps,
        "epochs": config.training.epochs,
        "rows": len(rows.train),
        "eval_rows": len(rows.eval),
        "trainable": trainable,
        **({"new_tokens": list(added)} if (added := new_tokens.assign_ids(folder, config.data.new_tokens).ids) else {}),
        "effective_batch": resolved.effective,
        "processes": distributed.world_size(),
        **resolved.as_event(),
        **packing_statistics(rows.train.first(20_000), layout, resolved.effective, config.training.seed),
        "data": rows.record,
        "statistics": rows.statistics,
    }


def _finish(run: Run, config: RunConfig, trainer: StudioTrainer, encoder: Encoder, base: Path, report: Report) -> None:
    """Write model/ with a manifest last, then the end line."""
    template, added = encoder.template, new_tokens.assign_ids(base, config.data.new_tokens)
    if report.discarding():
        report.emit("end", state="stopped", cause="Stopped and discarded as asked.", peak_memory=peak_memory())
        return
    report.phase("saving")
    step = trainer.take_best() if config.training.keep_best else trainer.state.global_step
    finished = sharding.gather_full_model(trainer)
    if distributed.is_main():
        with checkpoints.replacing(run.result) as result:
            config.method.save_result(finished, result)
            hf_files.copy_tokenizer(encoder.tokenizer_folder, result, template.text)
            if not config.method.adapter:
                hf_files.write_config(
                    base,
                    result,
                    dtype=str(finished.config.dtype).removeprefix("torch."),
                    vocabulary=added.size if added.size > model.facts(base).rows else None,
                )
            write_atomic(
                result / "manifest.json",
                json.dumps(
                    {
                        "base": str(base),
                        "base_fingerprint": shards.fingerprint(base),
                        "model": config.model.model_dump(),
                        "method": config.method.model_dump(mode="json"),
                        "template": template.name,
                        "stop": template.stop_strings,
                        "step": step,
                        "special_answers": special_answers(trainer.train_dataset, encoder),
                        **({"own_tokenizer": True, "new_tokens": added.ids} if added.rows else {}),
                    },
                    indent=1,
                    ensure_ascii=False,
                ),
            )
        report.saved(run.result, "model")
    stopped = report.stopping is not None
    report.emit(
        "end",
        state="stopped" if stopped else "finished",
        cause="Stopped as asked; the model so far is kept." if stopped else None,
        peak_memory=max(distributed.gather(peak_memory())),
        memory_by_phase=report.mark(),
        step=step,
    )


def special_answers(rows: Any, encoder: Encoder) -> list[int]:
    """Special tokens that were trained as part of answers, the ends of turns apart: the chat shows them. Looked for in 20,000 rows at most."""
    tokenizer, template = encoder.tokenizer, encoder.template
    special = {token for token, one in tokenizer.get_added_tokens_decoder().items() if one.special}
    ends = {tokenizer.token_to_id(text) for text in (*template.stop_strings, *template.special.values())}
    trained = {label for row in rows.first(20_000) for label in row["labels"]} if special - ends else set()
    return sorted((special - ends) & trained)


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
