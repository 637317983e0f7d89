"""What each `auto` of an order comes to, with the reason, before the run exists: for the page's form and `estimate`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from studio import auto, general, template
from studio.base import source
from studio.config import RunConfig
from studio.data import Dataset
from studio.device import Device
from studio.errors import OrderError
from studio.estimate import Estimate
from studio.memory.studio_loop import RowStatistics, longest_row
from studio.model import ModelFacts
from studio.training import Training

EVALUATIONS = 10  # of a run with eval_every: auto


class AutoValue(NamedTuple):
    """value: as the order would write it; None where it is known later. why: the reason, a part of a sentence."""

    value: Any
    why: str = ""


AutoValues = dict[str, AutoValue]  # by dotted key of the order


def auto_values(
    config: RunConfig, facts: ModelFacts, device: Device, rows: RowStatistics | None, expected: Estimate
) -> AutoValues:
    """The values for training, method, evaluation and place. rows: of the data, where known; expected: the estimate.

    Settings that do not go with the device or the model are left out: preflight refuses them.
    """
    values = _computing(config, facts, device, longest_row(config, rows), expected)
    values |= _devices(config, device, expected)
    if rows is not None:
        values |= _steps(config, rows)
    precision = config.training.precision
    method = config.method.auto_values(facts, device.precision if precision == "auto" else precision)
    values |= {f"method.{key}": AutoValue(*found) for key, found in method.items()}
    values |= {f"place.{key}": AutoValue(*found) for key, found in config.place.auto_values(expected.seconds).items()}
    if config.evaluation is not None:
        values["evaluation.max_new_tokens"] = AutoValue(None, "half as long again as the longest answer in the data")
    return ordered(config, values)


def ordered(config: RunConfig, values: AutoValues) -> AutoValues:
    """Those whose setting is auto in this order."""
    return {key: value for key, value in values.items() if _setting(config, key) == "auto"}


def of_data(config: RunConfig, dataset: Dataset) -> AutoValues:
    """The values for the data section, from what was recognised in the first data set."""
    folder = source.local(config.model)
    chosen = AutoValue(None, "known once the model is on this computer")
    if folder is not None:
        name = template.load("auto", folder).name
        own = name == "model"
        chosen = AutoValue(name, "the model brings its own" if own else "its marks are tokens of the model")
    return ordered(
        config,
        {
            "data.format": AutoValue(dataset.format, "recognised from the rows"),
            "data.encoding": AutoValue(dataset.encoding, "recognised from the file's bytes"),
            "data.template": chosen,
            "data.reasoning": AutoValue("mask_empty", "thinking is kept, an empty block is not trained"),
        },
    )


def _setting(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name, None)


def _computing(config: RunConfig, facts: ModelFacts, device: Device, longest: int, expected: Estimate) -> AutoValues:
    """Formats, kernels, layout and what saves memory."""
    values = {
        "training.precision": AutoValue(device.precision, why_precision(config, device)),
        "training.weights": AutoValue("fp32", "small steps are not lost in it"),
        "training.checkpointing": AutoValue(expected.checkpointing, why_checkpointing(config, expected)),
        "training.checkpointed_layers": AutoValue(
            expected.checkpointed_layers,
            "no more than must be" if expected.checkpointing else "gradient checkpointing is off",
        ),
        "training.probe": _probe(config, device, expected),
    }
    try:
        packed, kernel, why = auto.layout(config, facts, device, longest)
        values["training.packing"] = AutoValue(packed, why)
        values["training.micro_batch"] = _tokens_at_once(config, device, longest, packed, expected)
        values["training.fused_kernels"] = AutoValue(*auto.fused_kernels(config, facts, device))
        values["training.attention"] = AutoValue(kernel, _why_attention(packed, kernel))
        values["training.loss"] = AutoValue(auto.loss(config), _why_loss(config.training))
        usual = expected.optimizer == auto.optimizer(config, device)
        why = "its states fit" if usual else "memory is short"
        values["training.optimizer"] = AutoValue(expected.optimizer, why)
    except OrderError:
        pass
    return values


def _tokens_at_once(config: RunConfig, device: Device, longest: int, packed: bool, expected: Estimate) -> AutoValue:
    if expected.micro_batch:
        return AutoValue(expected.micro_batch, "they keep the card busy, and fit")
    if packed:
        why = "enough to keep a CPU busy" if device.kind == "cpu" else "batch size times the longest row"
        return AutoValue(auto.packed_tokens(config, device, longest), why)
    return AutoValue(auto.padded_rows(config, longest) * longest, "batch size times the longest row")


def _probe(config: RunConfig, device: Device, expected: Estimate) -> AutoValue:
    if auto.probe(config, device, expected.headroom):
        return AutoValue(True, "a run that would die late dies at once")
    return AutoValue(False, "half of the memory stays free")


def _steps(config: RunConfig, rows: RowStatistics) -> AutoValues:
    """What follows from the number of steps."""
    training = config.training
    steps, effective = training.steps(rows.rows), training.effective_batch(rows.rows)
    every, why = eval_every(training, steps), f"about ten times in {steps} steps"
    measured = general.is_measured("auto", steps * min(effective, rows.rows) * rows.mean)
    frontier = training.keep_best and (training.forgetting is True or training.forgetting == "auto" and measured)
    why_best_by = "forgetting is measured" if frontier else "forgetting is not measured"
    if not training.keep_best:
        why_best_by = "but no best checkpoint is kept"
    return {
        "training.accumulation": AutoValue(
            training.accumulation_steps(rows.rows), f"{effective} rows a step, {steps} steps"
        ),
        "training.eval_every": AutoValue(every, why if rows.eval_rows else "but no rows are held out"),
        "training.save_every": AutoValue(every, "as often as evaluations"),
        "training.forgetting": AutoValue(
            measured, "at most 4 % of the run's work" if measured else "the run is too short for 20 questions"
        ),
        "training.best_by": AutoValue("frontier" if frontier else "loss", why_best_by),
    }


def _devices(config: RunConfig, device: Device, expected: Estimate) -> AutoValues:
    threads, workers = auto.threads(config, device, expected.processes), auto.workers(config, device)
    return {
        "training.devices": AutoValue(1, "more only when asked"),
        "training.sharding": AutoValue(
            expected.sharding, "by what a copy with its states takes" if expected.sharding else "not used on one device"
        ),
        "training.threads": AutoValue(threads, f"of {device.cores} cores")
        if device.cores
        else AutoValue(None, "all cores but one"),
        "training.workers": AutoValue(
            workers, "batches are prepared meanwhile" if workers else "the cores are busy with products"
        ),
    }


def eval_every(training: Training, steps: int) -> int:
    """Steps between two evaluations."""
    return max(1, round(steps / EVALUATIONS)) if training.eval_every == "auto" else training.eval_every


def _why_attention(packed: bool, kernel: str) -> str:
    if packed:
        return "made for rows end to end"
    return "the scores go through a soft cap" if kernel == "eager" else "for padded rows"


def _why_loss(training: Training) -> str:
    if training.label_smoothing:
        return "label smoothing needs the whole row"
    return "trained tokens only, some at a time: same loss, less memory"


def why_precision(config: RunConfig, device: Device) -> str:
    if config.training.precision != "auto":
        return "as ordered"
    if device.bf16:
        return "the device computes in bf16"
    return (
        "an older card: fp16 with a scaler" if device.precision == "fp16" else "the device has no fast 16-bit products"
    )


def why_checkpointing(config: RunConfig, expected: Estimate) -> str:
    if config.training.checkpointing != "auto":
        return "as ordered"
    if expected.checkpointing:
        return "without it the run would not fit" if expected.fits else "the run may still not fit"
    spare = math.floor(100 * expected.headroom)
    return f"fits with {spare} % to spare" if expected.fits else "the method does not allow it"
