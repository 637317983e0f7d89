"""The result of a run: model/ in its folder, complete or absent, and the end event."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio import model, new_tokens
from studio.config import RunConfig
from studio.export import hf_files
from studio.home import write_atomic
from studio.runs import base_record, results
from studio.talk.stopping import end_token_ids
from studio.tokens import Encoder
from studio.worker import distributed, memory, reward_head, sharding, tokenizer_class
from studio.worker.context import RunContext
from studio.worker.trainer import StudioTrainer

ROWS_LOOKED_AT = 20_000  # of a large data set


def save_result(context: RunContext, trainer: StudioTrainer) -> None:
    """Write model/ with its manifest last, then the end event."""
    run, config, report = context.run, context.config, context.report
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
        with results.replacing(run.result) as folder:
            _write(folder, full_model, config, context.encoder, context.folder)
            special = special_answers(trainer.train_dataset, context.encoder)
            write_manifest(folder, _manifest(context) | {"step": step, "special_answers": special})
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


def _write(folder: Path, full_model: Any, config: RunConfig, encoder: Encoder, base: Path) -> None:
    """What the method saves, with tokenizer and template; the config too where it is a whole model."""
    config.method.save_result(full_model, folder)
    if config.stage.scores:
        reward_head.save(full_model, folder)
    tokenizer_class.write(encoder.tokenizer_folder, folder, encoder.template.text)
    if not config.method.adapter:
        size = new_tokens.assign_ids(base, config.data.new_tokens).size
        template = encoder.template
        ends = end_token_ids(encoder.tokenizer, template.stop_strings, template, base)
        hf_files.write_config(
            base,
            folder,
            dtype=model.facts(folder).stored_dtype,
            vocabulary=size if size > model.facts(base).rows else None,
            ends=ends,
        )
        hf_files.write_generation_config(base, folder, ends)


def _manifest(context: RunContext) -> dict[str, Any]:
    config, encoder = context.config, context.encoder
    added = new_tokens.assign_ids(context.folder, config.data.new_tokens)
    return {
        **manifest_of(config, context.folder, encoder.template.name, encoder.template.stop_strings),
        **({} if config.stage.is_supervised else {"stage": config.stage.model_dump(mode="json")}),
        **({"start": config.start} if config.start else {}),
        **({"own_tokenizer": True, "new_tokens": added.ids} if added.rows else {}),
    }


def manifest_of(config: RunConfig, base: Path, template: str, stop: Iterable[str]) -> dict[str, Any]:
    """What a reader of any result must know: the base it is for, the method, and how it is talked to."""
    return {
        "base": str(base),
        **base_record.of(base),
        "model": config.model.model_dump(),
        "method": config.method.model_dump(mode="json"),
        "template": template,
        "stop": list(stop),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))


def special_answers(rows: Any, encoder: Encoder) -> list[int]:
    """Special tokens, other than the ends of turns, that are targets in the first rows: the chat shows them."""
    tokenizer, template = encoder.tokenizer, encoder.template
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    special -= {tokenizer.token_to_id(text) for text in (*template.stop_strings, *template.special.values())}
    if not special:
        return []
    return sorted(special & {label for row in rows.first(ROWS_LOOKED_AT) for label in row["labels"]})
