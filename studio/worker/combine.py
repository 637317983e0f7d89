"""python -m studio.worker.combine RUN-FOLDER: combine the adapters of several runs with peft, and evaluate the result.

The base, every run and the combination are evaluated on each run's held-out rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import cast_adapter_dtype
from transformers import set_seed

from studio import combining, data, device, model, token_rows
from studio.combination import Combination
from studio.errors import ModelError, StudioError
from studio.home import folder_size
from studio.run import Run, find
from studio.runs import base_record, results
from studio.talk.reference import ModelReference
from studio.tokens import Encoder
from studio.worker import tokenizer_class, torch_devices
from studio.worker.loaded import LoadedModels
from studio.worker.memory import peak_memory
from studio.worker.packing import count_target_tokens
from studio.worker.prove import Rows, mean_loss
from studio.worker.report import Report
from studio.worker.result import manifest_of, write_manifest

ROWS = 200  # held-out rows to evaluate per run, at most
ROWS_PER_STOP_CHECK = 8


class Stopped(Exception):
    """The run was asked to stop: nothing has been written."""


def main(run: Run) -> int:
    """Exit code 0: the end event is finished or stopped; 1: it is failed, with the cause."""
    report = Report(run)
    return report.run_to_exit_code(lambda: combine(run, report))


def combine(run: Run, report: Report) -> None:
    """Load the base with every adapter, combine, measure, save."""
    config, order = run.config, run.config.combine
    torch.set_num_threads(device.cores())
    torch_devices.refuse_unusable(device.devices()[0])
    report.phase("fetching model")
    # looked at again: they may have changed while this run waited
    parents = combining.resolve_parents([find(name) for name in order.runs])
    _tell_templates(parents, report)
    facts = model.facts(parents[0].base)

    report.phase("loading model")
    base = LoadedModels().load(replace(parents[0], name="base", result=None, method=None)).model
    joined = combined(base, [parent.result for parent in parents], order, config.training.seed)
    trainable = sum(
        weight.numel() for name, weight in joined.named_parameters() if ".lora_" in name and ".default." in name
    )
    report.emit(
        "plan",
        parameters=facts.parameters,
        trainable=trainable,
        **base_record.of(parents[0].base),
        **_learnt_from(order),
    )

    try:
        table = measured(joined, order, _held_out(order, parents, report), report, run)
    except Stopped:
        report.emit(
            "end",
            state="stopped",
            cause="Stopped as asked before anything was kept.",
            action="Resume it to start again.",
            peak_memory=peak_memory(),
        )
        return
    report.phase("saving")
    _save(run, config, joined, parents, table)
    report.emit("saved", step=0, path=run.result.name, what="model", bytes=folder_size(run.result))
    report.emit("end", state="finished", peak_memory=peak_memory(), step=0)


def combined(base: Any, adapters: list[Path], order: Combination, seed: int) -> Any:
    """A PeftModel with the adapters p0, p1, … and their combination `default` active. Raises ModelError."""
    from peft import PeftModel

    if grown := next((folder for folder in adapters if token_rows.saved_indices(folder)), None):
        message = f"The adapter in {grown} brings rows for new tokens, which peft does not combine."
        hint = "Combine adapters of runs without data.new_tokens, or merge this one and train on the merged model."
        raise ModelError(message, hint, "runs")
    names = [f"p{index}" for index in range(len(adapters))]
    joined = PeftModel.from_pretrained(base, str(adapters[0]), adapter_name=names[0])
    for name, folder in zip(names[1:], adapters[1:], strict=True):
        joined.load_adapter(str(folder), adapter_name=name)
    for config in joined.peft_config.values():
        config.use_rslora = False  # the layers have the scale; the combination's is alpha / rank, which is 1
    pruning = {"density": order.density} if order.density is not None else {}
    set_seed(seed)
    joined.base_model.inject_adapter = _in_float32(joined.base_model.inject_adapter)
    try:
        joined.add_weighted_adapter(
            names, list(order.weights), "default", combination_type=order.how, svd_full_matrices=False, **pruning
        )
    except (ValueError, RuntimeError) as error:
        hint = "Take cat, which fits any two LoRA adapters of one base."
        raise ModelError(f"peft cannot combine these adapters: {error}", hint, "how") from error
    joined.set_adapter("default")
    return joined.eval()


def _in_float32(inject: Callable[..., None]) -> Callable[..., None]:
    """An adapter's matrices in float32, as PeftModel makes them: of a combination peft would round them to the base's
    dtype.
    """

    def injected(module: Any, name: str) -> None:
        inject(module, name)
        cast_adapter_dtype(module, name)

    return injected


def _tell_templates(parents: list[ModelReference], report: Report) -> None:
    first = parents[0]
    others = [parent.name for parent in parents[1:] if parent.template.text != first.template.text]
    if others:
        report.note(
            f"{', '.join(others)} learnt in another chat template than {first.name}. "
            f"The result is asked in that of {first.name}.",
            "warning",
        )


def _learnt_from(order: Combination) -> dict[str, Any]:
    """The plan's rows and sources, summed over the parents' plans."""
    plans = [find(name).plan() for name in order.runs]
    sources = {json.dumps(source): source for plan in plans for source in (plan.get("data") or {}).get("sources") or []}
    return {
        "steps": 0,
        "epochs": 0,
        "rows": sum(plan.get("rows") or 0 for plan in plans),
        "eval_rows": sum(plan.get("eval_rows") or 0 for plan in plans),
        "data": {"sources": list(sources.values())},
    }


# -- evaluation


def _held_out(order: Combination, parents: list[ModelReference], report: Report) -> list[tuple[str, int, Rows]]:
    """(run, number of held-out rows, the at most ROWS encoded ones, spread evenly) of every run with held-out rows."""
    report.phase("reading data")
    held_out = []
    for section in order.held_out:
        encoder = Encoder.from_order(section.data, parents[0].base)
        try:
            rows = data.held_out(section.data, encoder, section.seed)
        except StudioError as error:
            report.note(
                f"Nothing is measured on the rows of {section.run}: {error.message}", "warning", hint=error.hint
            )
            continue
        encoded = [encoder.encode(row) for row in rows[:: max(1, -(-len(rows) // ROWS))]]
        trained = [{"ids": row.ids, "labels": row.labels} for row in encoded if row.n_trained]
        if trained:
            held_out.append((section.run, len(rows), trained))
    if not held_out:
        report.note(
            "The runs held no rows out: what the combination is worth was not measured.",
            "warning",
            hint="Chat with it, or measure it on a file: python -m studio eval.",
        )
    return held_out


def measured(
    joined: Any, order: Combination, held_out: list[tuple[str, int, Rows]], report: Report, run: Run
) -> list[dict[str, Any]]:
    """[{run, rows, of, tokens, base, parents: {run: loss}, combined}], mean losses. Raises Stopped when asked."""
    table = []
    total, done = sum(len(rows) for _, _, rows in held_out) * (len(order.runs) + 2), 0

    def loss(name: str, rows: Rows) -> float:
        nonlocal done
        loss_sum = num_tokens = 0.0
        for start in range(0, len(rows), ROWS_PER_STOP_CHECK):
            if run.stop_request():
                raise Stopped
            chunk = rows[start : start + ROWS_PER_STOP_CHECK]
            chunk_tokens = sum(map(count_target_tokens, chunk))
            loss_sum += (_adapter_loss(joined, name, chunk) or 0.0) * chunk_tokens
            num_tokens += chunk_tokens
            done += len(chunk)
            report.phase("evaluating", detail=f"{done}/{total}")
        return loss_sum / max(1.0, num_tokens)

    for parent, available, rows in held_out:
        parents = {name: loss(f"p{index}", rows) for index, name in enumerate(order.runs)}
        table.append(
            {
                "run": parent,
                "rows": len(rows),
                "of": available,
                "tokens": sum(map(count_target_tokens, rows)),
                "base": loss("", rows),
                "parents": parents,
                "combined": loss("default", rows),
            }
        )
    if table:
        tokens = sum(row["tokens"] for row in table)
        base, combination = (sum(row[name] * row["tokens"] for row in table) / tokens for name in ("base", "combined"))
        report.emit("eval", step=0, loss=base)
        report.emit("eval", step=1, loss=combination, table=table)
    return table


def _adapter_loss(joined: Any, name: str, rows: Rows) -> float | None:
    """The mean loss with one adapter active, or with none for an empty name."""
    if not name:
        with joined.disable_adapter():
            return mean_loss(joined, rows)
    joined.set_adapter(name)
    return mean_loss(joined, rows)


# -- the result


def _save(run: Run, config: Any, joined: Any, parents: list[ModelReference], table: list[dict[str, Any]]) -> None:
    """Write the result folder, with its manifest last, complete or not at all."""
    first, base = parents[0], parents[0].base
    special_answers = {token for parent in parents for token in parent.manifest.get("special_answers") or ()}
    joined.set_adapter("default")
    with results.replacing(run.result) as result:
        config.method.save_result(joined, result)
        tokenizer_class.write(base, result, first.template.text)
        combined = {**config.combine.model_dump(mode="json", exclude={"held_out"}), "losses": table}
        manifest = manifest_of(config, base, first.template.name, first.stop)
        more = {"step": 0, "special_answers": sorted(special_answers), "combined": combined}
        write_manifest(result, manifest | more)


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
