"""The run that an order starts from: its adapter goes on, or its whole model is the new base. SFT first, then DPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio import config as orders
from studio import data
from studio.base import source
from studio.base.source import ModelOrder
from studio.config import RunConfig
from studio.errors import OrderError, RunError
from studio.export import folders
from studio.home import subfolder
from studio.method import Method
from studio.run import Run, find
from studio.runs import results
from studio.stages import learning_from

KEPT = (  # settings of the earlier run's training that an order after it takes over
    *("batch_size", "accumulation", "precision", "weights", "checkpointing", "packing", "optimizer", "loss"),
    *("attention", "threads", "workers", "seed", "sample_prompts", "samples", "keep_checkpoints", "report_to"),
)


def check(config: RunConfig) -> None:
    """Raise StudioError where an order's `start` cannot go on: no such run, no adapter, another base, other knobs."""
    if config.start is None:
        return
    run = find(config.start)
    manifest = _manifest(run)
    if config.place.remote:
        message = f"start is {run.id}, a run on this computer, and this order is for another one."
        hint = f"Merge it (python -m studio merge {run.id} FOLDER), set model to the folder and leave start out."
        raise OrderError(message, hint, "start")
    if config.stage.scores:
        message = "A reward model's head starts anew, so an adapter that was trained to write does not go on under it."
        raise OrderError(message, _instead(run), "start")
    results.check_result(run)
    _check_base(config, run, manifest)
    _check_method(config, run, manifest)


def _manifest(run: Run) -> dict[str, Any]:
    """The manifest of a run's result. Raises OrderError where it has none that writes text."""
    if run.config.stage.scores:
        raise OrderError(f"{run.id} is a reward model: it writes no text.", "Start from another run.", "start")
    try:
        manifest = json.loads((run.result / "manifest.json").read_text(encoding="utf-8"))
        return {**manifest, "model": ModelOrder.model_validate(manifest["model"]), "template": manifest["template"]}
    except FileNotFoundError:
        hint = "Wait until it is finished, or resume it."
        raise OrderError(f"{run.id} has no result yet: it is {run.state()}.", hint, "start") from None
    except (ValueError, LookupError, TypeError) as error:
        message = f"The result of {run.id} is damaged: its manifest.json cannot be read."
        hint = "Start from another run, or train this one again: python -m studio duplicate RUN."
        raise OrderError(message, hint, "start") from error


def _check_base(config: RunConfig, run: Run, manifest: dict[str, Any]) -> None:
    base: ModelOrder = manifest["model"]
    if config.model != base and source.local(config.model) != source.local(base):
        message = f"{run.id} was trained on {base.source}, and this order names {config.model.source}."
        hint = f"Set model to {base.source}."
        raise OrderError(message, hint, "model")
    if tuple(manifest.get("new_tokens") or ()) != config.data.new_tokens:
        tokens = json.dumps(list(manifest.get("new_tokens") or ()), ensure_ascii=False)
        message = f"The adapter of {run.id} has rows for other new tokens than this order names."
        hint = f"Set data.new_tokens to {tokens}."
        raise OrderError(message, hint, "data.new_tokens")


def _check_method(config: RunConfig, run: Run, manifest: dict[str, Any]) -> None:
    method: Method = run.config.method
    if not method.adapter:
        raise OrderError(f"The result of {run.id} is a whole model: no adapter goes on.", _instead(run), "start")
    if not method.goes_on or not method.shares_base or run.config.combine:
        hint = _instead(run)
        raise OrderError(f"The adapter of {run.id} cannot be trained further: {_why_not(method)}.", hint, "start")
    if not config.method.same_weights(method):
        knobs = json.dumps(method.model_dump(mode="json", exclude_defaults=True) | {"name": method.name})
        message = f"The adapter of {run.id} is {method.label} with other settings than this order's."
        hint = f"Set method to {knobs}."
        raise OrderError(message, hint, "method")


def _instead(run: Run) -> str:
    """How to go on from a run otherwise than by `start`."""
    if not run.config.method.adapter:
        return f"Set model to {run.result} and leave start out."
    if not run.config.method.mergeable:
        return "Leave start out: a new adapter begins at the base."
    return f"Merge it: python -m studio merge {run.id} FOLDER; set model to the folder and leave start out."


def _why_not(method: Method) -> str:
    if not method.goes_on:
        return f"{method.label} keeps of its training only what answers need"
    if not method.shares_base:
        return f"with start {getattr(method, 'init', '')} it was taken out of the base's own weights"
    return "it was combined of several"


def completed(config: RunConfig) -> RunConfig:
    """An order with `start` whose model, method and template, where they were left out, are those of that run."""
    if config.start is None:
        return config
    run = find(config.start)
    manifest, changes = _manifest(run), {}
    if "model" not in config.model_fields_set:
        changes["model"] = manifest["model"]
    if "method" not in config.model_fields_set:
        changes["method"] = run.config.method.model_dump(mode="json")
    if "template" not in config.data.model_fields_set:
        changes["data"] = {"template": manifest["template"]}
    return config.with_changes(**changes)


def order_after(run: Run, train: str, stage: str | None = None, base: Path | None = None) -> RunConfig:
    """The order that teaches a finished run what is in `train`, with its method, template and batch.

    stage: left out, what suits the data. base: the run merged into a folder, on which a new adapter begins; without it
    the run's adapter goes on, or its whole model is the base. Raises OrderError, DataError.
    """
    manifest, plain = _manifest(run), run.config.model_dump(mode="json", exclude_unset=True)
    suited = learning_from(data.read(train).examples)[0]
    order: dict[str, Any] = {
        "name": f"{stage or suited}-{run.config.name or run.config.method.name}",
        "model": manifest["model"],
        "data": {"train": train, "template": manifest["template"]},
        "stage": stage or suited,
        "method": run.config.method.model_dump(mode="json"),
        "training": {key: value for key, value in plain.get("training", {}).items() if key in KEPT},
    }
    if new_tokens := list(manifest.get("new_tokens") or ()):
        order["data"]["new_tokens"] = new_tokens
    if run.config.data.max_length != type(run.config.data).model_fields["max_length"].default:
        order["data"]["max_length"] = run.config.data.max_length
    if base is not None or not run.config.method.adapter:
        order["model"] = {"source": str(base or run.result)}
        order["data"].pop("new_tokens", None)
        order["data"]["template"] = "auto"  # the run's, which its tokenizer carries
    else:
        order["start"] = run.id
    return orders.build(order)


def merged(run: Run, progress: folders.Progress = lambda *_: None) -> Path:
    """The run's model merged into a folder of the home, made if need be. Raises ExportError."""
    if not run.config.method.adapter:
        return run.result
    folder = subfolder("models") / f"{run.id}-merged"
    if not (folder / "config.json").is_file():
        folders.export(run.id, "merged", folder, progress=progress, proven=False)
    return folder


def copied(run: Run) -> Path:
    """The copy of the adapter that a run goes on from. Raises RunError where it is gone."""
    if not (run.start / "adapter_model.safetensors").is_file():
        hint = f"Start the run anew, from {run.config.start}."
        raise RunError(f"The adapter that {run.id} goes on from is gone from its folder.", hint, str(run.start))
    return run.start
