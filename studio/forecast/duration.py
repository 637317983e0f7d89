"""How long a run takes: work (floating point operations) by speed, and the speed from this device's own runs where
there are any.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studio import cards, general
from studio.config import RunConfig
from studio.device import Device
from studio.home import subfolder
from studio.kernels import padded_width
from studio.memory.studio_loop import RowStatistics
from studio.memory.training_loop import TrainingLoop
from studio.model import ModelFacts

START = 8.0  # seconds until torch and its libraries are there, where the device was not timed
READ = 1.5e9  # bytes of weights a second, from disk to device
# of a card's dense speed: 0.20 to 0.35 is usual for transformers with LoRA (fms-acceleration's and LLaMA-Factory's
# figures)
USED = 0.30
CORE = {
    2: 100e9,
    4: 45e9,
}  # FLOP/s a core reaches in training, by bytes of a number; 220e9 to 290e9 were measured on 2 cores with bf16
WRITE = 3.5e8  # bytes a second, from memory to a checkpoint that has been read again (measured: 1.6 GB in 4.3 to 6.4 s)
FEW = 3  # runs up to which the calibration is one voice among theirs
KEPT = 12  # bytes a trained number takes in a checkpoint: weight and two moments
STATE = 28  # bytes that AdamW reads and writes a trained number: weight, gradient, two moments, all in float32


class Speed(NamedTuple):
    """FLOP/s a device reaches in training, and where that is from: runs, calibration, data sheet; launch: seconds a
    layer and piece beside; start: seconds until a trainer's libraries are there; moved: bytes a second, to and from
    memory.
    """

    rate: float
    source: str
    launch: float = 0.0
    start: float = START
    moved: float = 8e9


class Calibration(NamedTuple):
    """What worker/calibrate.py found. rates: FLOP/s, launch: seconds a layer and piece, by kind of method; start: as in
    Speed.
    """

    rates: dict[str, float]
    launch: dict[str, float]
    start: float


class Pace(NamedTuple):
    """Seconds of the whole run, of one optimizer step, and tokens a second without filling.

    work: FLOP of a step; beside: seconds of a step that its work does not explain; evaluation, saving: seconds of one.
    """

    total: float
    step: float
    tokens_per_second: float
    source: str
    work: float
    beside: float
    evaluation: float
    saving: float


def work(facts: ModelFacts, config: RunConfig, row: float, labelled: float, checkpointing: bool) -> float:
    """FLOP a real token costs. row: its mean tokens; labelled: share of tokens the head is applied to.

    Forward 2 a weight; backward 2 more for the gradient of what goes in, and 2 for that of the weight where it is
    trained; attention 6·L·row·width with a causal mask (Kaplan et al. 2020, arXiv 2001.08361, table 1);
    checkpointing walks forward again.
    """
    linears = facts.linears()
    body = sum(inputs * outputs for inputs, outputs in linears.values())
    head = facts.vocab_size * facts.hidden_size * labelled
    body += _experts(facts)
    names = set(config.method.trained(facts))
    moving = sum(inputs * outputs for name, (inputs, outputs) in linears.items() if f"{name}.weight" in names)
    beside = config.method.trainable(facts) if config.method.adapter else 0
    forward = 2 * (body + head)
    squares = 6 * facts.num_hidden_layers * row * facts.num_attention_heads * facts.head_dim
    return 2 * forward + 2 * moving + 6 * beside + squares + (2 * body + squares / 3 if checkpointing else 0)


def _experts(facts: ModelFacts) -> int:
    """Weights of the experts that a token visits; they are stacked, and no linears by themselves."""
    told = facts.text_config
    active = told.get("num_experts_per_tok") or told.get("num_experts_per_token") or 0
    return (
        int(active)
        * 3
        * facts.hidden_size
        * int(told.get("moe_intermediate_size") or facts.intermediate_size)
        * facts.num_hidden_layers
    )


def pace(facts: ModelFacts, config: RunConfig, rows: RowStatistics, loop: TrainingLoop, speed: Speed) -> Pace:
    """Of a run whose data is known."""
    training = config.training
    each = work(facts, config, rows.mean, min(1.0, rows.label_tokens / max(1, rows.tokens)), loop.checkpointing)
    effective, steps = min(training.effective_batch(rows.rows), rows.rows), training.steps(rows.rows)
    devices = loop.world_size if loop.device == "cuda" else 1  # processes on a CPU share its cores
    tokens = effective * rows.mean
    micro_batches = max(1, -(-tokens // (loop.tokens * devices)))
    moving, launched = config.method.trainable(facts), speed.launch * facts.num_hidden_layers
    beside = launched * micro_batches + moving * STATE / speed.moved
    each *= (
        padded_width(int(rows.mean + config.method.footprint(facts).virtual)) / rows.mean if loop.batch > 1 else 1.0
    )  # padded rows, not laid end to end
    worked = tokens + (general.BRAKE_TOKENS * devices if training.keep_general else 0)
    step = worked * each / (speed.rate * devices) + beside
    evaluations = (
        1 + (10 if training.eval_every == "auto" else steps // max(1, training.eval_every)) if rows.eval_rows else 0
    )
    held = rows.eval_rows * rows.mean
    evaluation = (held * each / speed.rate + launched * -(-held // loop.tokens)) / 3  # forward is a third
    saves = 10 if training.save_every == "auto" else steps // max(1, training.save_every)
    saving = moving * KEPT / WRITE
    probe = loop.tokens * each / speed.rate + launched if training.probe else 0.0
    measuring = general.SHARE * steps * step if general.is_measured(training.forgetting, steps * tokens) else 0.0
    around = (
        speed.start
        + measuring
        + facts.parameters * loop.weight_itemsize / READ
        + probe
        + evaluations * evaluation
        + (saves + 1) * saving
    )
    return Pace(around + steps * step, step, tokens / step, speed.source, worked * each, beside, evaluation, saving)


def kind(config: RunConfig) -> str:
    """What an order is timed as: matrices or vectors beside the layers' linears (adapters), every weight (full), or
    other.
    """
    method = config.method
    return "full" if not method.adapter else "adapters" if hasattr(method, "target_modules") else "other"


def speed(device: Device, each: int, rates: Sequence[float] = (), timed: str = "adapters") -> Speed:
    """rates: FLOP/s of this device's own runs of like shape, newest first; each: bytes of a number; timed: the order's
    kind.
    """
    kept = calibrated(device)
    launch, start = (kept.launch[timed], kept.start) if kept else (device.traits.launch, START)
    moved = device.traits.moved
    if rates:
        prior = [kept.rates[timed]] if kept and len(rates) < FEW else []
        return Speed(statistics.median([*rates[:12], *prior]), "runs", launch, start, moved)
    if kept:
        return Speed(kept.rates[timed], "calibration", launch, start, moved)
    if device.traits.speed is None:
        return Speed(CORE[each] * (device.cores or 1), "data sheet", launch, START, moved)
    card = cards.find(device.name, device.memory)
    return Speed(
        (card.speed * cards.share(device.name) if card else device.traits.speed) * USED,
        "data sheet",
        launch,
        START,
        moved,
    )


def left(done: int, steps: int, spent: float, expected: float) -> float:
    """Seconds still to go: the estimate at first, after a twentieth of the steps what they really took.

    done, steps: optimizer steps; spent: seconds they took; expected: seconds a step, as estimated.
    """
    trust = min(1.0, done / max(1.0, 0.05 * steps))
    seen = spent / done if done else expected
    return max(0, steps - done) * (trust * seen + (1 - trust) * expected)


PAUSES = ("probing", "evaluating", "saving")


class Pause(NamedTuple):
    """A probe, an evaluation or a saving between two steps: its name and the seconds at which it began and ended."""

    name: str
    began: float
    ended: float


def pauses(events: Sequence[Mapping[str, Any]]) -> list[Pause]:
    """Probes, evaluations and savings that are over, from a run's events with the `time` at which each happened
    (ui/tail.py).
    """
    turns = [event for event in events if event["kind"] == "phase"]
    return [
        Pause(one["name"], one["time"], after["time"])
        for one, after in zip(turns, turns[1:], strict=False)
        if one["name"] in PAUSES
    ]


def remaining(
    steps: Sequence[float],
    times: Sequence[float],
    pauses: Sequence[Pause],
    plan: Mapping[str, Any],
    tokens: Sequence[float] = (),
) -> float | None:
    """Seconds a running run still takes. steps, times, tokens: of its points so far; plan: its plan event. None where
    nothing can be said.

    Tokens go on as those of the last half went, the first steps not counted, which compile kernels; evaluations and
    savings still to come take what those so far took, the first ones what was expected.
    """
    total, told = plan.get("steps"), plan.get("expected") or {}
    expected = told.get("seconds_per_step")
    if not total or not len(steps) and expected is None:
        return None
    done = int(steps[-1]) if len(steps) else 0
    if 0 < len(steps) < 3 and steps[0] == 1 and len(tokens) == len(steps):  # the start of the training is a point too
        steps, times, tokens = [0, *steps], [0.0, *times], [0, *tokens]
    first = min(max(2, len(steps) // 2), max(0, len(steps) - 2))
    between = sum(
        pause.ended - pause.began
        for pause in pauses
        if len(times) > first and times[first] <= pause.began and pause.ended <= times[-1]
    )
    counted = steps[-1] - steps[first] if len(steps) > first else 0
    pace = (times[-1] - times[first] - between) / counted if counted else None
    known = plan.get("statistics") or {}
    if (
        pace is not None
        and known.get("rows")
        and plan.get("effective_batch")
        and len(tokens) == len(steps)
        and tokens[-1] > tokens[first]
    ):
        usual = min(plan["effective_batch"], known["rows"]) * known["tokens"] / known["rows"]  # of a step
        pace *= usual * counted / (tokens[-1] - tokens[first])
    pace, expected = (expected if pace is None else pace), (pace if expected is None else expected)
    if pace is None or expected is None:
        return None
    seconds = left(done, total, pace * done, expected)
    for name, key in (("evaluating", "eval_every"), ("saving", "save_every")):
        took = [pause.ended - pause.began for pause in pauses if pause.name == name] or [
            (told.get("pauses") or {}).get(name, 0.0)
        ]
        if plan.get(key):
            seconds += max(0, total // plan[key] - done // plan[key]) * statistics.mean(took)
    return seconds


# -- the calibration


def calibration_file(device: Device) -> Path:
    """Where a device's measured speeds are kept."""
    return subfolder("cache") / f"speed-{re.sub(r'[^A-Za-z0-9]+', '-', device.name)}-{device.cores or 0}.json"


def calibrated(device: Device) -> Calibration | None:
    """What calibration.py found for this device; None before it ran."""
    try:
        found = json.loads(calibration_file(device).read_text())
        rates, launch = (
            {name: float(found[part][name]) for name in ("adapters", "full", "other")} for part in ("rates", "launch")
        )
        return Calibration(rates, launch, float(found["start"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
