"""Races: several settings of one order, trained in turns over one base (worker/race.py). Orders, price, table, keeping.

A setting's part of the race is a run's folder of its own inside the race's, so that the winner goes on as an ordinary
run, from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from studio import config as orders_of
from studio import estimate, model, preflight, queue
from studio.base import source
from studio.config import RunConfig
from studio.contest import FOLDER, MOST, Contest, Plan
from studio.device import Device, devices
from studio.errors import OrderError, RunError
from studio.forecast import record
from studio.memory.studio_loop import RowStatistics
from studio.race_settings import labels
from studio.run import Run
from studio.runs import checkpoints

ADAPTER_ITEMSIZE = 4  # bytes a number of a waiting adapter takes: float32
STOPPED_STATES = ("out", "failed")
UNDECIDED = ("waiting", "racing")


# -- the order


def order(
    base: RunConfig,
    settings: Sequence[Sequence[str]],
    halving: bool = True,
    keep: bool = False,
    plan: Plan | None = None,
) -> RunConfig:
    """The order of a race. settings: each contestant's changes ("method.rank=8"). Raises OrderError."""
    if len(settings) > MOST:
        hint = "Vary fewer values at a time."
        raise OrderError(f"These are {len(settings)} settings; a race takes {MOST}.", hint, "--set")
    contest = Contest(settings=tuple(map(tuple, settings)), halving=halving, keep=keep, plan=plan)
    name = base.name or ("plan" if plan else "race")
    return base.model_copy(update={"race": contest, "name": name})


def orders(config: RunConfig) -> list[RunConfig]:
    """Each contestant's own order: that of an ordinary run with its settings. Raises OrderError."""
    contest = config.race
    if contest is None:
        raise OrderError("This order is no race.", "Start one: python -m studio race DATA.", "race")
    plain = yaml.safe_load(config.to_yaml())
    plain.pop("race")
    plain.pop("name", None)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    contestants = [
        orders_of.parse(text, sorted(settings, key=_name_first), where="the race") for settings in contest.settings
    ]
    return [
        order.model_copy(update={"name": f"{config.name or 'race'} {label}"[:120]})
        for order, label in zip(contestants, labels(contest), strict=True)
    ]


def _name_first(setting: str) -> bool:
    """Sorts method.name before the knobs, which another name would reset."""
    return not setting.startswith("method.name=")


# -- before the start


class Price(NamedTuple):
    """What a race takes. total, high: bytes at its peak; waiting: bytes of it for the adapters whose turn it is not;
    seconds: None where the rows are not known; alone: each setting's estimate as a run of its own.
    """

    total: int
    high: int
    waiting: int
    free: int
    fits: bool
    seconds: float | None
    alone: list[estimate.Estimate]


def base_key(config: RunConfig) -> tuple[Any, ...] | None:
    """What settings must have in common to be trained over the same base; None for one that needs a base of its own."""
    if not config.method.shares_base:
        return None
    return config.method.quantized(), config.training.precision, config.training.attention


def groups(contestants: Sequence[RunConfig]) -> list[list[int]]:
    """Numbers of the contestants that share a base, the largest group first; the groups run one after the other."""
    shared: dict[Any, list[int]] = {}
    for number, config in enumerate(contestants):
        key = base_key(config)
        shared.setdefault(("alone", number) if key is None else key, []).append(number)
    return sorted(shared.values(), key=lambda group: (-len(group), group[0]))


def price(
    config: RunConfig, facts: model.ModelFacts, device: Device, rows: RowStatistics | Mapping[str, int] | None = None
) -> Price:
    """One base, the largest setting's step, and the other settings' adapters beside it, of the largest group."""
    contestants = orders(config)
    alone = [record.forecast(estimate.grown(facts, order), order, device, rows) for order in contestants]
    peaks = []
    for group in groups(contestants):
        largest = max(group, key=lambda number: alone[number].high)
        waiting = sum(ADAPTER_ITEMSIZE * alone[number].trainable for number in group if number != largest)
        peaks.append((alone[largest].high + waiting, alone[largest].total + waiting, waiting))
    high, total, waiting = max(peaks)
    seconds = [expected.seconds for expected in alone]
    known = sum(seconds) * config.race.cost() if all(seconds) else None
    return Price(total, high, waiting, device.free, high <= device.free, known, alone)


def check(config: RunConfig, rows: RowStatistics | Mapping[str, int] | None = None) -> Price | None:
    """Refuse a race that cannot run or does not fit; its price where the model is here. Raises StudioError."""
    if config.place.remote:
        raise OrderError("A race runs on this computer only.", "Leave place out.", "place")
    if not config.data.eval:
        hint = "Hold rows out: data.eval: 0.1."
        raise OrderError("A race is decided on held-out rows, and with data.eval 0 there are none.", hint, "data.eval")
    if config.training.devices not in ("auto", 1):
        raise OrderError("A race runs on one device.", "Leave training.devices out.", "training.devices")
    if config.training.compile:
        message = "A race compiles nothing: every setting has a model of its own, and each would be compiled."
        hint = "Set training.compile to false; the winner can be trained with it."
        raise OrderError(message, hint, "training.compile")
    for order in orders(config):
        _check_setting(order)
    folder = source.check(config.model)
    if folder is None:
        return None
    cost = price(config, model.facts(folder), devices()[0], rows)
    if not cost.fits:
        raise OrderError(
            f"This race takes up to {cost.high / 2**30:.2f} GiB, {cost.waiting / 2**30:.2f} GiB of it for the settings "
            f"that wait for their turn, and {cost.free / 2**30:.2f} GiB are free.",
            "Race fewer or smaller settings, a smaller training.batch_size, or QLoRA (method.name=qlora).",
            "memory",
        )
    return cost


def _check_setting(order: RunConfig) -> None:
    """Refuse a setting that cannot take part. Raises StudioError."""
    if not order.stage.is_supervised:
        hint = "Leave stage out, or train the settings as runs and compare them."
        raise OrderError(f"A race compares settings of supervised tuning, not of {order.stage.label}.", hint, "stage")
    preflight.check(order)
    if order.training.keep_general and not order.method.adapter:
        message = "In a race the brake on forgetting works for adapters only: between two turns the base is gone."
        hint = "Set training.keep_general to 0, or leave full out."
        raise OrderError(message, hint, "training.keep_general")


def start(config: RunConfig, rows: RowStatistics | Mapping[str, int] | None = None) -> Run:
    """Check and queue a race. Raises StudioError before a run exists."""
    check(config, rows)
    return queue.submit(config)


# -- the folder and the table


def contestant(race: Run, number: int) -> Run:
    """The folder of one setting's part; number counts from 1."""
    return Run(race.folder / FOLDER / f"{number:02d}")


def table(race: Run) -> list[dict[str, Any]]:
    """The rows of the latest ranking, the best first; before the first one, the settings without figures."""
    rows = next((event["table"] for event in reversed(race.events()) if "table" in event), None)
    if rows is None:
        rows = [new_row(number, one, label) for number, (one, label) in enumerate(named_orders(race.config), 1)]
    if race.state() in ("stopped", "failed", "lost"):  # where it ended between two standings
        rows = [{**row, "state": "stopped"} if row["state"] in UNDECIDED else row for row in rows]
    return sorted(rows, key=lambda row: (row["place"] is None, row["place"] or row["contestant"]))


def named_orders(config: RunConfig) -> list[tuple[RunConfig, str]]:
    """Each contestant's order and short name."""
    return list(zip(orders(config), labels(config.race), strict=True))


def new_row(number: int, config: RunConfig, label: str) -> dict[str, Any]:
    """A contestant's row before it has run. losses: by rung; state: waiting, racing, out (stopped as a loser), won,
    stopped (with the race), failed, finished; shared: whether others train over the same base.
    """
    quantized = config.method.quantized()
    return {
        "contestant": number,
        "label": label,
        "place": None,
        "state": "waiting",
        "cause": None,
        "method": config.method.model_dump(mode="json"),
        "base": quantized.kind if quantized else "whole",
        "shared": True,
        "learning_rate": config.learning_rate,
        "trainable": None,
        "parameters": None,
        "share": None,
        "estimated_memory": None,
        "step": 0,
        "steps": None,
        "eval_loss_before": None,
        "eval_loss": None,
        "train_loss": None,
        "losses": [],
        "train_seconds": 0.0,
    }


def rank(rows: list[dict[str, Any]]) -> None:
    """Set the places: more rungs before fewer, then the lower loss, before the first rung the lower held-out loss."""
    measured = [row for row in rows if row["eval_loss"] is not None and row["step"] and row["state"] != "failed"]
    measured.sort(key=lambda row: (-len(row["losses"]), row["losses"][-1] if row["losses"] else row["eval_loss"]))
    for row in rows:
        row["place"] = None
    for place, row in enumerate(measured, 1):
        row["place"] = place


def keep(race: Run, number: int | None = None) -> Run:
    """Make a setting's part an ordinary run that goes on from its checkpoint; the winner's without a number.

    A part that was trained to its end becomes a finished run. Raises RunError while the race runs, or where the
    setting has learnt nothing yet.
    """
    if race.alive() or race.state() == "queued":
        raise RunError(f"{race.id} is not over: it is {race.state()}.", "Wait for it, or stop it first.", "run")
    return keep_part(race, table(race), number)


def keep_part(race: Run, rows: list[dict[str, Any]], number: int | None = None) -> Run:
    """As `keep`, without looking at the race's state: its own worker calls it while it runs. rows: the table."""
    if race.config.race is None:
        raise RunError(f"{race.id} is no race.", "Name a race: python -m studio runs.", "run")
    chosen = next((row for row in rows if row["contestant"] == number or (number is None and row["place"] == 1)), None)
    if chosen is None:
        message = f"{race.id} has no setting {number}." if number else f"{race.id} has no winner yet."
        hint = f"Its settings are numbered 1 to {len(rows)}." if number else "Resume it, or start it anew."
        raise RunError(message, hint, "contestant")
    part = contestant(race, chosen["contestant"])
    finished = part.has_result()
    if not finished and checkpoints.newest(part.checkpoints) is None:
        hint = "Start an ordinary run with these settings instead."
        raise RunError(f"The setting {chosen['label']} has no checkpoint to go on from.", hint, "contestant")
    return queue.adopt(part.config, part.folder) if finished else queue.submit(part.config, part.folder)


def winner_order(race: Run) -> str | None:
    """The winner's order as YAML; None before there is one."""
    rows = table(race)
    if not rows or rows[0]["place"] != 1:
        return None
    return orders(race.config)[rows[0]["contestant"] - 1].to_yaml()


def begun(folder: Path) -> bool:
    """Whether a setting's part has been started."""
    return (folder / "config.yaml").is_file()
