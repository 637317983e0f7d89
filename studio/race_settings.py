"""The settings that a race compares: varied from `--set` texts, or chosen around an order's own; their short names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from studio import yaml_text
from studio.config import RunConfig
from studio.contest import Contest
from studio.errors import OrderError
from studio.methods import METHODS

SECTIONS = ("method", "training")  # whose keys a race may vary; plan varies data.train too
FIXED = {  # training keys that may not vary, and why
    "seed": "other seeds hold other rows out, so the losses would not be of the same rows",
    "devices": "a race runs on one device",
    "sharding": "a race runs on one device",
    "threads": "it changes how fast a run is, not what it learns",
    "workers": "it changes how fast a run is, not what it learns",
    "report_to": "it changes nothing that a run learns",
}
SHORT = {"learning_rate": "rate", "batch_size": "batch", "target_modules": "targets"}
# what is raced where nothing was chosen: the method's own rate, a third and three times of it, at two ranks
RATES, RANKS = (1 / 3, 1.0, 3.0), (8, 32)


def variants(settings: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """(changes of all, contestants) of `--set` texts: a key with several values, k=a,b,c, is varied.

    Contestants are all combinations, () where nothing varies. Raises OrderError for a key that may not vary.
    """
    common, varied = [], []
    for setting in settings:
        key, sign, value = setting.partition("=")
        values = _values(value) if sign else []
        if len(values) < 2:
            common.append(setting)
            continue
        _refuse_key(key.strip())
        if len(set(values)) < len(values):
            raise OrderError(f"--set {setting} names a value twice.", "Name each value once.", key)
        varied.append([f"{key.strip()}={value}" for value in values])
    return common, [*itertools.product(*varied)] if varied else []


def _values(text: str) -> list[str]:
    """The values of a list a,b,c; commas inside brackets and quotes belong to a value."""
    values: list[str] = []
    depth = 0
    quote = ""
    start = 0
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "," and not depth:
            values.append(text[start:index].strip())
            start = index + 1
    return [value for value in (*values, text[start:].strip()) if value]


def _refuse_key(key: str) -> None:
    section, _, name = key.partition(".")
    if section not in SECTIONS or not name:
        message = f"A race cannot vary {key}: all settings are measured on the same held-out rows of one model."
        hint = "Vary keys of method or training, such as method.rank or training.learning_rate."
        raise OrderError(message, hint, key)
    if section == "training" and name in FIXED:
        raise OrderError(f"A race cannot vary {key}: {FIXED[name]}.", "Set it to one value for all.", key)


def default_settings(base: RunConfig) -> list[tuple[str, ...]]:
    """Six settings around the order's own: three rates, at two ranks where the method has ranks, else two batches."""
    other = (
        [f"method.rank={rank}" for rank in RANKS]
        if hasattr(base.method, "rank")
        else ["training.batch_size=2", "training.batch_size=8"]
    )
    rates = [f"training.learning_rate={base.learning_rate * factor:.3g}" for factor in RATES]
    return [*itertools.product(other, rates)]


def labels(contest: Contest) -> list[str]:
    """A short name for each contestant: "rank 8 · rate 0.001"."""
    return [" · ".join(_label(setting) for setting in settings) for settings in contest.settings]


def _label(setting: str) -> str:
    key, _, value = setting.partition("=")
    name = key.rpartition(".")[2]
    if key == "method.name":
        kind = METHODS.get(value)
        return kind.label if kind else value
    if key == "data.train":
        weight = yaml_text.read(value, key)[0].get("weight", 1)
        return f"{100 * weight:g} % of the rows"
    return f"{SHORT.get(name, name)} {value}"
