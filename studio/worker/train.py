"""python -m studio.worker.train RUN-FOLDER: one run, from order to result. Read `train` from top to bottom.

The model is loaded and wrapped in base_model.py. A step is `training_step` in trainer.py: batches.py and packing.py
make its micro-batches, loss.py their loss. Checkpoints are in checkpointing.py, the result in result.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from studio import data, model, new_tokens, preflight, process, unused_settings
from studio.base import source
from studio.data.streaming import StreamedRows
from studio.device import devices
from studio.evaluation.questions import Question, distinct
from studio.memory.peak import grown
from studio.method import trained_weights
from studio.model import ModelFacts
from studio.resolve import Resolved, resolve
from studio.run import Run
from studio.runs import base_record, checkpoints
from studio.runs.continuation import check_base
from studio.tokens import Encoder
from studio.worker import (
    base_model,
    decoder_layers,
    distributed,
    forgetting,
    keep_general,
    loss_check,
    origin,
    probe,
    reference,
    torch_devices,
)
from studio.worker.batches import packing_statistics
from studio.worker.context import RunContext
from studio.worker.grpo import GroupObjective
from studio.worker.make_trainer import make_trainer
from studio.worker.packing import Layout
from studio.worker.report import Report
from studio.worker.result import ROWS_LOOKED_AT, save_result
from studio.worker.samples import Samples
from studio.worker.trainer import StudioTrainer

LOOKED_AT_FOR_SAMPLES = 50  # held-out rows


def main(run: Run) -> int:
    """Train. Exit code 0: the end event says finished or stopped; 1: it says failed, and why."""
    if distributed.world_size() > 1:
        # torchrun's processes have sessions of their own, out of our supervisor's reach
        process.die_with_parent(os.getppid())
        distributed.set_current_device()
    training = run.config.training
    report = Report(run, None, training.early_stopping, training.keep_best, training.best_by)
    return report.run_to_exit_code(lambda: train(run, report))


def train(run: Run, report: Report) -> None:
    """One run: model and data, the wrapped model, its checks, the training, the result."""
    config, checkpoint = run.config, checkpoints.newest(run.checkpoints)
    set_seed(config.training.seed)
    context, facts = prepare(run, report, resumes=bool(checkpoint))
    resolved, base, tuned = load_model(context, facts)
    if checkpoint:
        checkpoints.refuse_other_data(checkpoint, context.rows.train.content)
    trainer = make_trainer(context, resolved, tuned, resumes=bool(checkpoint))
    resolved = loss_check.check_loss(trainer, resolved)
    _prepare_objective(trainer, context, resolved)
    emit_plan(context, resolved, tuned, facts.parameters)
    _measure_beside(trainer, context, resolved)
    if not checkpoint and not config.start:
        config.method.initialize(tuned, trainer.first_inputs)
    if resolved.compile:
        trainer.add_callback(decoder_layers.CompileCallback(base, report))
    if resolved.probe:
        trainer.add_callback(probe.MemoryProbe(trainer))
    report.phase("training", from_step=checkpoints.step_of(checkpoint))
    trainer.train_from(checkpoint, resolved.steps)
    _note_dropped_rows(context.rows, report)
    save_result(context, trainer)


def prepare(run: Run, report: Report, resumes: bool) -> tuple[RunContext, ModelFacts]:
    """Fetch the base model, refuse what cannot be trained, read the data. The facts are those with new tokens' rows."""
    config, device = run.config, devices()[0]
    torch_devices.refuse_unusable(device)
    report.phase("fetching model")
    folder = source.fetch(config.model, report=lambda what, done, total: print(what, done, total, flush=True))
    if resumes:
        check_base(run, folder)
    facts = model.facts(folder)
    config.method.refuse(facts, config.training, device)
    config.stage.refuse(config.method, config.data, config.training)
    preflight.check_new_tokens(config, facts)
    for caution in config.method.cautions(config.training):
        report.note(caution, "warning")
    report.phase("reading data")
    encoder = Encoder.from_order(config.data, folder, num_virtual_tokens=config.virtual_tokens)
    rows = data.prepare(config.data, encoder, config.training.seed, ahead=True)
    context = RunContext(run, config, folder, encoder, rows, report)
    _note_data(context)
    return context, grown(facts, config)


def load_model(context: RunContext, facts: ModelFacts) -> tuple[Resolved, Any, Any]:
    """(the settings with no `auto` left, the base, the model that the method makes of it), on the device."""
    config, rows, report = context.config, context.rows, context.report
    report.phase("loading model")
    resolved = resolve(config, facts, devices()[0], rows.statistics, distributed.local_world_size())
    torch.set_num_threads(resolved.threads)
    torch.set_flush_denormal(True)  # denormal numbers are many times slower on a CPU, and add nothing
    resolved, base, tuned = base_model.load_in_finite_precision(config, resolved, context.folder, rows, report)
    if config.start:
        origin.go_on(context, tuned)
    if base.config._attn_implementation == "eager":
        resolved = resolved._replace(attention="eager")
    return resolved, base, tuned


def _prepare_objective(trainer: StudioTrainer, context: RunContext, resolved: Resolved) -> None:
    """What a stage needs before the first step: the untouched base where no adapter can be switched off, rewards."""
    run, config = context.run, context.config
    asks_base = config.stage.uses_reference and not config.switches_adapter_off
    if isinstance(trainer.objective, GroupObjective):
        trainer.objective.prepare(context.encoder, config, resolved.steps, run.folder)
        if asks_base:
            untouched = base_model.load_base(config, resolved, context.folder)
            if config.start and config.method.adapter:  # with the adapter that this run goes on from
                untouched = base_model.wrap_base(config, resolved, untouched)
                config.method.load_result(untouched, origin.copied(run))
            trainer.objective.reference_model = untouched.requires_grad_(False).eval()
    elif asks_base:
        reference.with_reference(trainer, run.folder, resolved.steps)


def _measure_beside(trainer: StudioTrainer, context: RunContext, resolved: Resolved) -> None:
    """Ask the base about the general prompts, to measure forgetting by and to hold on to; prepare the samples."""
    config, encoder, report = context.config, context.encoder, context.report
    training = config.training
    if not config.stage.scores:
        measures = True if training.keep_best and training.best_by == "frontier" else training.forgetting
        report.forgetting = forgetting.start(trainer, encoder, resolved, measures, context.rows.statistics)
        trainer.brake = keep_general.start(trainer, encoder, training.keep_general, training.keep_general_by)
    if questions := _sample_questions(context):
        rounds = 1 + -(-resolved.steps // resolved.eval_every)
        seconds, has_start = resolved.expected.get("seconds"), config.start is not None
        report.samples = Samples(questions, encoder, trainer, seconds, rounds, has_start)


def _sample_questions(context: RunContext) -> list[Question]:
    """The sample prompts as ordered, else the first distinct questions of what is held out."""
    config = context.config
    if config.training.sample_prompts:
        return [Question(text, [{"role": "user", "content": text}]) for text in config.training.sample_prompts]
    count = config.training.samples if len(context.rows.eval) and not config.stage.scores else 0
    if not count or not distributed.is_main():
        return []
    few = data.held_out(config.data, context.encoder, config.training.seed, LOOKED_AT_FOR_SAMPLES)
    return distinct(few, count, config.data.train_on == "last")


def _note_data(context: RunContext) -> None:
    """Say what is odd about template, tokens and rows, and how the rows that are evaluated on were chosen."""
    config, rows, report = context.config, context.rows, context.report
    if caution := context.encoder.end_of_turn_warning():
        report.note(caution, "warning")
    if caution := new_tokens.describe_unseen(rows.record.get("unseen_tokens", [])):
        report.note(caution, "warning")
    if note := context.encoder.new_tokens_note():
        report.note(note)
    for part in rows.record["sources"]:
        for caution in data.cautions(part.get("compared")):
            report.note(caution, "warning")
    evaluated, note = rows.record["eval"], data.leak_note(rows.record["eval"])
    if config.data.eval and not len(rows.eval) and not note:
        report.note(
            f"Of {len(rows.train)} rows none is held out: it is not measured how this does on rows that it has not "
            "learnt from.",
            "warning",
        )
    for key in unused_settings.ON_EVALUATION if not len(rows.eval) else ():
        if getattr(config.training, key):
            report.note(f"Nothing is held out to measure on, so training.{key} does nothing.", "warning")
    if note:
        report.note(note, "info" if evaluated["rows"] else "warning")
    if evaluated.get("of", 0) > config.data.eval_rows:
        others = "not used" if isinstance(config.data.eval, str) else "trained on"
        report.note(
            f"Measured on are {evaluated['rows']} of the {evaluated['of']} rows of the held-out data, spread over "
            f"short and long ones; the others are {others}. data.eval_rows sets how many."
        )


def _note_dropped_rows(rows: data.Prepared, report: Report) -> None:
    """Note the rows dropped after the plan was written, of data that is encoded during training."""
    late = rows.train.finished() if isinstance(rows.train, StreamedRows) else None
    if late and late["dropped"]:
        counts = "; ".join(f"{kind}: {dropped['count']}" for kind, dropped in late["dropped"].items())
        report.note(f"Rows that could not be trained on: {counts}.", data=late)


def emit_plan(context: RunContext, resolved: Resolved, tuned: Any, parameters: int) -> None:
    """Say what is known before the first step. parameters: of the base."""
    config, rows = context.config, context.rows
    added = new_tokens.assign_ids(context.folder, config.data.new_tokens).ids
    layout, seed = Layout.of(resolved), config.training.seed
    context.report.emit(
        "plan",
        parameters=parameters,
        trainable=sum(weight.numel() for weight in trained_weights(tuned).values()),
        **base_record.of(context.folder),
        steps=resolved.steps,
        epochs=config.training.epochs,
        rows=len(rows.train),
        eval_rows=len(rows.eval),
        effective_batch=resolved.effective,
        processes=distributed.world_size(),
        **resolved.as_event(),
        **packing_statistics(rows.train.first(ROWS_LOOKED_AT), layout, resolved.effective, seed),
        **({"new_tokens": list(added)} if added else {}),
        stage=config.stage.name,
        data=rows.record,
        statistics=rows.statistics,
    )


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
