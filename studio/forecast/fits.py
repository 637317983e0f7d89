"""Whether a model can be tuned on a device, by full fine-tuning, LoRA and QLoRA: the choice of a model before an order.

Every answer is an estimate of an order with the model and the method put in, first as it stands and then with the
settings that save most. A search for the longest rows takes two or three walks instead of the estimate's twenty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from studio import cards
from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError
from studio.forecast import duration, remedies
from studio.forecast.duration import NO_RUNS, Past
from studio.memory.peak import Peak, peak
from studio.memory.studio_loop import ASSUMED_ROWS, RowStatistics
from studio.model import ModelFacts

METHODS = ("full", "lora", "qlora")
LONGEST = 131_072  # tokens; longer rows are not asked for
STEP = 64  # tokens
NEAR = 0.96  # of the free memory: rows that fill it so far are the longest
FULL = 0.98  # of the free memory: what the search aims at
TRIES = 5  # walks of that search


class Fit(NamedTuple):
    """total: expected bytes with `settings`, the changes that the order needs to fit (dotted keys, {} for none; where
    it does not fit, those that save most). max_length: tokens of the longest rows that fit with all that saves memory,
    None where none do. seconds: of the run, None where nothing is known of the data. why: what refuses the method here.
    """

    method: str
    fits: bool
    total: int
    max_length: int | None
    settings: dict[str, Any]
    seconds: float | None = None
    why: str = ""


ROOMY = {"full": 22.0, "lora": 6.0, "qlora": 3.0}  # bytes a weight from which on a method mostly fits as it is


def fit(
    facts: ModelFacts, order: RunConfig, device: Device, rows: RowStatistics | None = None, past: Past = NO_RUNS
) -> Fit:
    """The fit of an order that names the method. Raises OrderError where model or device do not go with the method.

    Evaluations are not walked: they run forwards alone, and take no more than a step (tests/forecast/test_fits.py).
    """
    trains = order.with_changes(data={"eval": 0})
    held_out = rows
    rows = rows._replace(eval_rows=0) if rows else None

    def measure(config: RunConfig, rows: RowStatistics | None = rows) -> Peak:
        return peak(facts, config, device, rows, past.correction)

    saving = _saving(trains, device, rows)
    tight = remedies.apply(trains, saving)
    bare = trains.training.checkpointing == "auto" and facts.parameters * ROOMY[order.method.name] < device.free
    chosen, settings = measure(trains if bare else tight), {} if bare else saving
    if bare and not chosen.fits:
        chosen, settings = measure(tight), saving
    if not chosen.fits:
        return Fit(order.method.name, False, chosen.total, None, settings)
    if settings and not bare and (plain := measure(trains)).fits:
        chosen, settings = plain, {}
    limit = min(LONGEST, facts.context or LONGEST)
    longest = _longest_rows(tight, rows, limit, facts, chosen, measure)
    seconds = None
    if held_out is not None:
        speed = duration.speed(device, chosen.loop.weight_itemsize, past.rates, duration.kind(order))
        pace = duration.pace(facts, remedies.apply(order, settings), held_out, chosen.loop, speed)
        seconds = round(pace.total, 1)
    return Fit(order.method.name, True, chosen.total, longest, settings, seconds)


def _saving(order: RunConfig, device: Device, rows: RowStatistics | None) -> dict[str, Any]:
    """The changes that save most memory and leave what an optimizer step sees (dotted keys)."""
    training = order.training
    saving: dict[str, Any] = {
        "training.batch_size": 1,
        "training.accumulation": training.effective_batch(rows.rows if rows else ASSUMED_ROWS),
    }
    if order.method.allows_checkpointing:
        saving["training.checkpointing"] = True
    if not order.method.adapter and training.optimizer == "auto" and training.weights == "auto":
        half = training.precision in ("auto", "bf16") and device.bf16
        saving |= {"training.weights": "bf16"} if half else {"training.optimizer": "adafactor"}
    return saving


def _longest_rows(
    order: RunConfig,
    rows: RowStatistics | None,
    limit: int,
    facts: ModelFacts,
    known: Peak,
    measure: Callable[[RunConfig, RowStatistics | None], Peak],
) -> int:
    """Tokens of the longest rows, up to `limit`, with which an order that fits still fits; rather a little too low.

    known: a peak of at least what the order takes as it is. Memory mostly grows with the length in a line; where it
    does not, the search halves.
    """

    def walk(length: int) -> Peak | None:
        long_rows = rows._replace(longest=length) if rows else None
        try:
            return measure(remedies.apply(order, {"data.max_length": length}), long_rows)
        except OrderError:  # not every setting goes with a longer row
            return None

    low, high, free = min(order.data.max_length, limit), limit + 1, known.device.free
    point, before = (0, known.needed - known.step.peak + known.step.standing), None  # (tokens, bytes) that fit
    beyond: tuple[int, int] | None = None
    guess = point[1] and (free - point[1]) / _bytes_per_token(facts, known)
    for _ in range(TRIES):
        length = min(high - 1, max(low + STEP, int(guess)))
        length = limit if length >= limit else length // STEP * STEP
        if length <= low:
            break
        walked = walk(length)
        if walked is None or not walked.fits:
            high, beyond = length, (length, walked.needed) if walked else None
        else:
            low, before, point = length, point, (length, walked.needed)
            if length == limit or walked.needed >= NEAR * free:
                break
        other = beyond or before
        if other is None or (other[1] - point[1]) * (other[0] - point[0]) <= 0:
            guess = (low * high) ** 0.5
        else:
            guess = point[0] + (FULL * free - point[1]) / (other[1] - point[1]) * (other[0] - point[0])
    return low


def _bytes_per_token(facts: ModelFacts, known: Peak) -> int:
    """Bytes of a token in the leanest step, about: each layer's input, and the tensors of one layer."""
    return known.loop.compute_itemsize * (facts.num_hidden_layers * facts.hidden_size + 16 * facts.intermediate_size)


def fits(
    facts: ModelFacts,
    order: RunConfig,
    device: Device,
    rows: RowStatistics | None = None,
    past: Callable[[RunConfig], Past] = lambda config: NO_RUNS,
) -> dict[str, Fit]:
    """The answer of each method; one that is refused does not fit, with the reason in `why`."""
    answers: dict[str, Fit] = {}
    for method in METHODS:
        config = with_method(order, method)
        try:
            answers[method] = fit(facts, config, device, rows, past(config))
        except OrderError as error:
            answers[method] = Fit(method, False, 0, None, {}, why=str(error))
    return answers


def with_method(order: RunConfig, name: str) -> RunConfig:
    """The order by another method; its own knobs stay where it names that method already."""
    return order if order.method.name == name else order.with_changes(method=name)


def smallest(answers: Mapping[str, Fit], facts: ModelFacts, order: RunConfig, device: Device) -> dict[str, Any] | None:
    """{device, memory, method} of the smallest known card on which a model fits, or None. answers: on `device`."""
    totals = {name: answer.total for name, answer in answers.items() if answer.total}
    if not totals:
        return None
    method = min(totals, key=lambda name: totals[name])
    least = totals[method] * (1.0 if device.bf16 else 0.5)  # a card holds in 16 bits what a CPU may hold in 32
    config = with_method(order, method).with_changes(data={"eval": 0})
    needed: dict[bool, float] = {}  # bytes, by whether a card has bf16; they hardly depend on its memory
    for card in sorted(cards.CARDS, key=lambda card: (card.memory, card.name)):
        if card.memory < max(least, NEAR * needed.get(card.bf16, 0.0)):
            continue
        other = cards.device(card.name)
        try:
            saving = _saving(config, other, None)
            walked = peak(facts, remedies.apply(config, saving), other, None)
        except OrderError:
            continue
        if walked.fits:
            return {"device": card.name, "memory": card.memory, "method": method}
        needed[card.bf16] = walked.needed
    return None
