"""python -m studio.worker.train RUN-FOLDER: one run, from order to result. Read `train` from top to bottom."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainingArguments, set_seed

from studio import checkpoints, data, levers, model, source
from studio.config import RunConfig
from studio.device import devices
from studio.errors import StudioError
from studio.home import write_whole
from studio.run import Run
from studio.tokens import Encoder
from studio.template import load as load_template
from studio.worker.batches import Batches
from studio.worker.report import Report, peak_memory
from studio.worker.trainer import StudioTrainer


def main(run: Run) -> int:
    """Carry the order out. Exit code 0: the end line says finished or stopped; 1: it says failed, and why."""
    report = Report(run, int(os.environ.get("STUDIO_ATTEMPT", 1)))
    try:
        train(run, report)
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        report.say("end", state="failed", cause=error.message, action=error.hint)
        return 1
    return 0


def train(run: Run, report: Report) -> None:
    """Fetch, read, load, wrap, train, save."""
    config, device = run.config, devices()[0]
    set_seed(config.training.seed)

    report.phase("fetching model")
    folder = source.fetch(config.model, report=lambda what, done, total: print(what, done, total, flush=True))
    facts = model.facts(folder)
    config.method.refuse(facts, config.training, device)

    report.phase("reading data")
    template = load_template(config.data.template, folder)
    encoder = Encoder(folder, template, config.data.max_length, config.data.too_long, config.data.train_on)
    rows = data.prepare(config.data, encoder, config.training.seed)

    report.phase("loading model")
    settled = levers.settle(config, facts, device, rows)
    torch.set_num_threads(settled.threads)
    base = config.method.load(folder, getattr(torch, settled.dtype))
    tuned = config.method.wrap(base)
    trainer = _trainer(run, config, settled, tuned, rows, report)
    report.say("plan", **_plan(config, settled, tuned, trainer, rows))

    resumed = checkpoints.newest(run.checkpoints)
    if not resumed:
        config.method.start(tuned, trainer.get_train_dataloader)
    if not resumed and len(rows.eval):
        report.phase("evaluating")
        trainer.evaluate()
    report.phase("training", from_step=int(resumed.name.rpartition("-")[2]) if resumed else 0)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    _finish(run, config, trainer, template, folder, report)


def _trainer(run: Run, config: RunConfig, settled: levers.Settled, tuned: Any, rows: data.Prepared, report: Report) -> StudioTrainer:
    training = config.training
    arguments = TrainingArguments(
        output_dir=str(run.checkpoints), num_train_epochs=training.epochs, max_steps=training.max_steps or -1,
        per_device_train_batch_size=settled.batch_size, per_device_eval_batch_size=settled.batch_size,
        gradient_accumulation_steps=settled.accumulation, learning_rate=config.learning_rate, lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup, weight_decay=training.weight_decay, max_grad_norm=training.max_grad_norm,
        neftune_noise_alpha=training.neftune, label_smoothing_factor=training.label_smoothing, optim=settled.optimizer,
        bf16=settled.autocast == "bfloat16", fp16=settled.autocast == "float16", use_cpu=settled.device == "cpu",
        gradient_checkpointing=settled.checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False} if settled.checkpointing else None,
        torch_compile=training.compile, seed=training.seed, data_seed=training.seed, logging_steps=training.log_every,
        logging_first_step=True, logging_nan_inf_filter=False, eval_strategy="steps" if len(rows.eval) else "no", eval_steps=settled.eval_every,
        save_strategy="steps", save_steps=settled.save_every, save_total_limit=None, report_to=list(training.report_to) or "none",
        disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=settled.device != "cpu", prediction_loss_only=True)
    return StudioTrainer(
        method=config.method, report=report, loss=settled.loss, keep=training.keep_checkpoints, fingerprint=rows.fingerprint,
        model=tuned, args=arguments, train_dataset=rows.train, eval_dataset=rows.eval if len(rows.eval) else None,
        data_collator=Batches(), callbacks=[report])


def _plan(config: RunConfig, settled: levers.Settled, tuned: Any, trainer: StudioTrainer, rows: data.Prepared) -> dict[str, Any]:
    """What is known before the first step."""
    trainable = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    return {"steps": settled.steps, "epochs": config.training.epochs, "rows": len(rows.train), "eval_rows": len(rows.eval),
            "trainable": trainable, "parameters": sum(weight.numel() for weight in tuned.parameters()) - (trainable if config.method.adapter else 0),
            "effective_batch": settled.batch_size * settled.accumulation, **settled.told(), "data": rows.record}


def _finish(run: Run, config: RunConfig, trainer: StudioTrainer, template: Any, base: Path, report: Report) -> None:
    """Write model/ with a manifest last, then the end line."""
    stopped = run.stop_file.exists()
    if stopped and report.discarding():
        report.say("end", state="stopped", cause="Stopped and discarded as asked.", peak_memory=peak_memory())
        return
    report.phase("saving")
    step = trainer.state.global_step
    run.result.mkdir(exist_ok=True)
    config.method.save(trainer.accelerator.unwrap_model(trainer.model), run.result)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template.text
    tokenizer.save_pretrained(run.result)
    write_whole(run.result / "manifest.json", json.dumps({
        "base": str(base), "model": config.model.model_dump(), "method": config.method.model_dump(mode="json"),
        "template": template.name, "stop": template.stop, "step": step}, indent=1, ensure_ascii=False))
    report.say("saved", step=step, path="model", what="model")
    report.say("end", state="stopped" if stopped else "finished", cause="Stopped as asked; the model so far is kept." if stopped else None,
               peak_memory=peak_memory(), step=step)


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
