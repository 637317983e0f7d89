"""How long a run takes: its floating point operations by the device's speed, from its own runs where there are any."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from studio import cards, general
from studio.config import RunConfig
from studio.device import Device
from studio.home import subfolder
from studio.kernels import EVAL_PROMPTS, padded_width
from studio.memory.studio_loop import RowStatistics
from studio.memory.training_loop import TrainingLoop
from studio.method import trained_shapes
from studio.model import ModelFacts

START = 8.0  # seconds to import torch and its libraries, where the device was not timed
READ_RATE = 1.5e9  # bytes of weights a second, from disk to device
# Reached share of a card's dense speed; 0.20 to 0.35 is usual for transformers with LoRA (figures of fms-acceleration
# and LLaMA-Factory).
UTILISATION = 0.30
# FLOP/s a core reaches in training, by bytes of a number; 220e9 to 290e9 were measured on 2 cores with bf16
CORE_RATE = {2: 100e9, 4: 45e9}
WRITE_RATE = 3.5e8  # bytes a second, to a checkpoint that is read again (measured: 1.6 GB in 4.3 to 6.4 s)
FORWARD, FORWARD_OF_ADAPTERS = 1 / 3, 1 / 2  # share of a step's work; no gradient by frozen weights is formed
FEW = 3  # runs up to which the calibration counts as one more
CHECKPOINT_BYTES = 12  # of a trained number: weight and two moments
ADAMW_BYTES = 28  # that AdamW reads and writes a trained number: weight, gradient, two moments, all in float32


class Speed(NamedTuple):
    """rate: FLOP/s a device reaches in training. source: runs, calibration or data sheet.

    launch: overhead in seconds of a layer and micro-batch. start: seconds to import a trainer's libraries. moved:
    memory bandwidth in bytes/s.
    """

    rate: float
    source: str
    launch: float = 0.0
    start: float = START
    moved: float = 8e9


class Calibration(NamedTuple):
    """Measured by worker/calibrate.py. rates, launch: as in Speed, by kind of method. start: as in Speed."""

    rates: dict[str, float]
    launch: dict[str, float]
    start: float


class Past(NamedTuple):
    """What a device's finished runs say of an order (forecast/record.py): measured bytes over estimated, FLOP/s."""

    correction: float = 1.0
    rates: Sequence[float] = ()


NO_RUNS = Past()


class Pace(NamedTuple):
    """Seconds of the whole run, of one optimizer step, and tokens a second without padding.

    work: FLOP of a step. beside: seconds of a step that its work does not explain. evaluation, saving: seconds of one.
    """

    total: float
    step: float
    tokens_per_second: float
    source: str
    work: float
    beside: float
    evaluation: float
    saving: float


def work(facts: ModelFacts, config: RunConfig, row: float, labelled: float, checkpointed: float) -> float:
    """FLOP of a token that is no padding. row: mean tokens of a row; labelled: share of tokens the head is applied to;
    checkpointed: share of the layers.

    Forward 2 a weight; backward 2 for the gradient of the input, and 2 for that of a trained weight; attention
    6·L·row·width with a causal mask (Kaplan et al. 2020, arXiv 2001.08361, table 1); a checkpointed layer
    repeats forward.
    """
    linears = facts.linears()
    body = sum(inputs * outputs for inputs, outputs in linears.values()) + _active_experts(facts)
    head = facts.vocab_size * facts.hidden_size * labelled
    names = trained_shapes(facts, config.method)
    trained = sum(inputs * outputs for name, (inputs, outputs) in linears.items() if f"{name}.weight" in names)
    adapter = config.method.trainable(facts) if config.method.adapter else 0
    forward = 2 * (body + head)
    attention = 6 * facts.num_hidden_layers * row * facts.num_attention_heads * facts.head_dim
    return 2 * forward + 2 * trained + 6 * adapter + attention + (2 * body + attention / 3) * checkpointed


def _active_experts(facts: ModelFacts) -> int:
    """Weights of the experts that a token is routed to; they are stacked, and no linears of their own."""
    config = facts.text_config
    active = int(config.get("num_experts_per_tok") or config.get("num_experts_per_token") or 0)
    intermediate_size = int(config.get("moe_intermediate_size") or facts.intermediate_size)
    return active * 3 * facts.hidden_size * intermediate_size * facts.num_hidden_layers


def pace(facts: ModelFacts, config: RunConfig, rows: RowStatistics, loop: TrainingLoop, speed: Speed) -> Pace:
    """The pace of a run whose data is known."""
    prompts, rows = rows, rows.answered(config.stage)
    training, trainable = config.training, config.method.trainable(facts)
    labelled = 0.0 if config.stage.scores else min(1.0, rows.label_tokens / max(1, rows.tokens))
    checkpointed = 1 - loop.kept_layers / facts.num_hidden_layers if loop.checkpointing else 0.0
    token_work = work(facts, config, rows.mean, labelled, checkpointed)
    if loop.batch > 1:  # padded, not packed
        token_work *= padded_width(int(rows.mean + config.method.footprint(facts).virtual)) / rows.mean
    forwards = config.stage.extra_forwards(config.switches_adapter_off)
    token_work *= 1 + forwards * (FORWARD_OF_ADAPTERS if config.method.adapter else FORWARD)
    effective, steps = min(training.effective_batch(prompts.rows), prompts.rows), config.steps(prompts.rows)
    effective *= max(1, config.stage.answers_per_row)
    devices = loop.world_size if loop.device == "cuda" else 1  # processes on a CPU share its cores
    tokens = effective * rows.mean
    micro_batches = max(1, -(-tokens // (loop.tokens * devices)))
    launch = speed.launch * facts.num_hidden_layers
    beside = launch * micro_batches + trainable * ADAMW_BYTES / speed.moved
    worked = tokens + (general.BRAKE_TOKENS * devices if training.keep_general else 0)
    step = worked * token_work / (speed.rate * devices) + beside
    writing, writing_eval = _writing(facts, config, prompts, loop, speed, effective)
    step += writing / config.stage.steps_per_batch
    often = 10 if training.eval_every == "auto" else steps // max(1, training.eval_every)
    evaluations = 1 + often if rows.eval_rows else 0
    eval_tokens = 0.0 if config.stage.generates else rows.eval_rows * rows.mean
    evaluation = (eval_tokens * token_work / speed.rate + launch * -(-eval_tokens // loop.tokens)) * FORWARD
    evaluation += writing_eval
    saves = 1 + (10 if training.save_every == "auto" else steps // max(1, training.save_every))
    saving = trainable * CHECKPOINT_BYTES / WRITE_RATE
    total = speed.start + facts.parameters * loop.weight_itemsize / READ_RATE + steps * step
    total += evaluations * evaluation + saves * saving
    if general.is_measured(training.forgetting, steps * tokens):
        total += general.SHARE * steps * step
    asks_once = config.stage.uses_reference and not config.stage.generates
    if asks_once and not config.switches_adapter_off:
        asked = min(rows.tokens, steps * tokens)
        total += (asked + eval_tokens) * token_work / speed.rate * FORWARD  # asked once, before the start
    if training.probe is True or training.probe == "auto" and loop.device != "cpu":
        total += loop.tokens * token_work / speed.rate + launch
    return Pace(total, step, tokens / step, speed.source, worked * token_work, beside, evaluation, saving)


def _writing(
    facts: ModelFacts, config: RunConfig, prompts: RowStatistics, loop: TrainingLoop, speed: Speed, answers: int
) -> tuple[float, float]:
    """Seconds to write a step's answers, and those to held-out prompts. A token of a batch reads all weights once."""
    stage = config.stage
    if not stage.generates:
        return 0.0, 0.0
    forward = 2 * (facts.parameters + _active_experts(facts)) / speed.rate
    token = facts.parameters * loop.weight_itemsize / speed.moved + speed.launch * facts.num_hidden_layers

    def seconds(count: int) -> float:
        batches = -(-count // max(1, loop.writes))
        return batches * stage.answer_tokens * token + count * stage.answer_tokens * forward

    prompt = answers / stage.answers_per_row * prompts.mean * forward
    held_out = min(prompts.eval_rows, EVAL_PROMPTS)
    return seconds(answers) + prompt, seconds(held_out) + held_out * prompts.mean * forward


def kind(config: RunConfig) -> str:
    """What an order is timed as: full (every weight), adapters (beside the layers' linears), or other."""
    if not config.method.adapter:
        return "full"
    return "adapters" if hasattr(config.method, "target_modules") else "other"


def speed(device: Device, itemsize: int, rates: Sequence[float] = (), method_kind: str = "adapters") -> Speed:
    """The speed of a device. rates: FLOP/s of its runs of like shape, newest first. method_kind: of `kind`."""
    calibration = calibrated(device)
    launch, start, moved = device.traits.launch, START, device.traits.bandwidth
    if calibration:
        launch, start = calibration.launch[method_kind], calibration.start
    if rates:
        prior = [calibration.rates[method_kind]] if calibration and len(rates) < FEW else []
        return Speed(statistics.median([*rates[:12], *prior]), "runs", launch, start, moved)
    if calibration:
        return Speed(calibration.rates[method_kind], "calibration", launch, start, moved)
    if device.traits.speed is None:
        return Speed(CORE_RATE[itemsize] * (device.cores or 1), "data sheet", launch, start, moved)
    card = cards.find(device.name, device.memory)
    dense = card.speed * cards.share(device.name) if card else device.traits.speed
    return Speed(dense * UTILISATION, "data sheet", launch, start, moved)


# -- the calibration


def calibration_file(device: Device) -> Path:
    """The file of a device's measured speeds."""
    return subfolder("cache") / f"speed-{re.sub(r'[^A-Za-z0-9]+', '-', device.name)}-{device.cores or 0}.json"


def calibrated(device: Device) -> Calibration | None:
    """The calibration of this device; None before calibration.py ran."""
    try:
        values = json.loads(calibration_file(device).read_text())
        rates, launch = (
            {name: float(values[part][name]) for name in ("adapters", "full", "other")} for part in ("rates", "launch")
        )
        return Calibration(rates, launch, float(values["start"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
