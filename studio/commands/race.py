"""race, keep, compare-methods: several settings over one base, measured; one table, and the winner goes on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from studio import config, race, race_settings, run
from studio.commands import Commands, Failed, add_settings, print_table
from studio.commands.estimate import statistics
from studio.commands.runs import submit_and_follow
from studio.config import RunConfig
from studio.errors import OrderError
from studio.home import write_atomic
from studio.methods import METHODS

HELD_OUT = {"eval": 0.1}  # data.eval, so that settings can be told apart
COLUMNS = (
    ("place", "place"),
    ("label", "setting"),
    ("trainable", "trained"),
    ("share", "of model"),
    ("eval_loss_before", "loss before"),
    ("eval_loss", "loss"),
    ("step", "steps"),
    ("train_seconds", "seconds"),
    ("estimated_memory", "memory alone"),
    ("state", "state"),
)
COMPARED = (
    ("label", "method"),
    ("trainable", "trained"),
    ("share", "of model"),
    ("eval_loss_before", "loss before"),
    ("eval_loss", "loss after"),
    ("train_seconds", "seconds"),
    ("estimated_memory", "memory"),
)


def add(commands: Commands) -> None:
    about = "train several settings in turns over one base, stop the worse half again and again, print one table"
    parser = commands.add("race", about, start_race, lambda rows: show_table(rows, COLUMNS))
    parser.add_argument("data", help="a data file, a Hub id, sample, or an order (FILE.yaml)")
    add_order(parser, "change the order; several values are raced: --set method.rank=8,16")
    parser.add_argument("--keep", action="store_true", help="let the winner go on as an ordinary run")
    parser.add_argument("--all", action="store_true", help="stop nobody: train every setting to the end")
    parser.add_argument("--detach", action="store_true", help="return at once; the race goes on by itself")
    kept = commands.add("keep", "let a setting of a race go on as an ordinary run", keep)
    kept.add_argument("name", metavar="RUN", help="a race's id, a unique part of it, or last")
    kept.add_argument("setting", metavar="N", nargs="?", type=int, help="its number in the table; left out: the winner")
    about = "train every method on your data and print one table"
    compared = commands.add("compare-methods", about, compare, lambda rows: show_table(rows, COMPARED))
    compared.add_argument("data", help="a data file, a Hub id or sample")
    compared.add_argument("--methods", metavar="A,B", help=f"only these of: {','.join(METHODS)}")
    compared.add_argument("--ranks", metavar="4,8,16", help="compare LoRA of several ranks instead of methods")
    add_order(compared, "change every order: --set training.batch_size=2")
    compared.add_argument("--epochs", type=float, default=1, help="passes over the data for each (1)")
    compared.add_argument(
        "--save",
        metavar="FILE",
        type=Path,
        help="also write the table as JSON; rows already there are kept and not measured again",
    )


def add_order(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("--model", default="starter", help="the base model (starter)")
    add_settings(parser, about)


# -- race and keep


def start_race(args: argparse.Namespace) -> list[dict[str, Any]] | dict[str, Any]:
    """The table, the best first, each row with its order; with --detach {run, state}."""
    common, settings = race_settings.variants(args.settings)
    base = base_order(args, common, "race", HELD_OUT)
    order = race.order(base, settings or race_settings.default_settings(base), halving=not args.all, keep=args.keep)
    rows, _ = statistics(base)
    answer = submit_and_follow(lambda: race.start(order, rows), args.detach)
    return answer if args.detach or "eval_loss" not in answer else answered(run.find(answer["run"]))


def base_order(args: argparse.Namespace, settings: list[str], where: str, data: dict[str, Any]) -> RunConfig:
    """The order that all settings change: that of a YAML file, or one of DATA. data: further keys of its data."""
    if args.data.endswith((".yaml", ".yml")):
        return config.load(args.data, settings)
    plain = {"model": args.model, "data": {"train": args.data, **data}}
    return config.parse(yaml.safe_dump(plain), settings, where=where)


def answered(chosen: run.Run) -> list[dict[str, Any]]:
    """The table of a race: each row with its run and its order as a plain object."""
    orders = race.orders(chosen.config)
    return [
        {"run": chosen.id, **row, "order": yaml.safe_load(orders[row["contestant"] - 1].to_yaml())}
        for row in race.table(chosen)
    ]


def keep(args: argparse.Namespace) -> dict[str, Any]:
    """{run, state} of the ordinary run."""
    kept = race.keep(run.find(args.name), args.setting)
    return {"run": kept.id, "state": kept.state()}


# -- compare-methods


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A race in which nobody is stopped; the table as a list of rows, in the order asked for."""
    plain = {"name": "ranks" if args.ranks else "methods", "model": args.model, "training": {"epochs": args.epochs}}
    plain["data"] = {"train": args.data, **HELD_OUT}
    base = config.parse(yaml.safe_dump(plain), args.settings, where="compare-methods")
    settings = _compared(args)
    orders = race.orders(race.order(base, settings, halving=False))
    known = json.loads(args.save.read_text()) if args.save and args.save.is_file() else []
    missing = [number for number, order in enumerate(orders) if not _find(known, order)]
    table = list(known)
    if missing:
        order = race.order(base, [settings[number] for number in missing], halving=False)
        answer = submit_and_follow(lambda: race.start(order, statistics(base)[0]), detach=False)
        race_run = run.find(answer["run"])
        rows = sorted(race.table(race_run), key=lambda row: row["contestant"])
        table += [_row(orders[number], row, race_run.id) for number, row in zip(missing, rows, strict=True)]
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.save, json.dumps([row for row in table if row["state"] == "finished"], indent=1) + "\n")
    table = [row for order in orders if (row := _find(table, order))]
    if any(row["state"] != "finished" for row in table):
        raise Failed(table)
    return table


def _compared(args: argparse.Namespace) -> list[tuple[str, ...]]:
    """The contestants: one for each method, or for each rank."""
    if not args.ranks:
        return [(f"method.name={name.strip()}",) for name in (args.methods.split(",") if args.methods else METHODS)]
    try:
        return [("method.name=lora", f"method.rank={int(rank)}") for rank in args.ranks.split(",")]
    except ValueError:
        hint = "Write --ranks 4,8,16,32,64."
        raise OrderError(f"--ranks {args.ranks!r} is no list of whole numbers.", hint, "--ranks") from None


def _identity(order: RunConfig) -> dict[str, Any]:
    """What identifies a measured row: a saved one is reused only where all of it is equal."""
    plain = order.model_dump(mode="json", exclude_unset=True)
    return {
        "method": order.method.model_dump(mode="json"),
        "model": order.model.source,
        "data": order.data.train,
        "training": plain["training"],
    }


def _find(table: list[dict[str, Any]], order: RunConfig) -> dict[str, Any] | None:
    identity = _identity(order)
    return next((row for row in table if all(row.get(key) == value for key, value in identity.items())), None)


def _row(order: RunConfig, row: dict[str, Any], race_id: str) -> dict[str, Any]:
    """A race's row under the name of its method, with what was asked. Memory: estimated, for this method alone."""
    method = order.method
    label = f"{method.label} {method.rank}" if getattr(method, "rank", None) else method.label
    return {**row, **_identity(order), "label": label, "run": race_id, "seconds": row["train_seconds"]}


# -- the table


def show_table(table: list[dict[str, Any]] | dict[str, Any], columns: tuple[tuple[str, str], ...]) -> None:
    """The rows in columns, as wide as they need."""
    if isinstance(table, dict):
        print(f"run: {table['run']}\nstate: {table['state']}")
        return
    lines = [[title for _, title in columns], *([_cell(key, row.get(key)) for key, _ in columns] for row in table)]
    print_table(lines, right=[column for column, (key, _) in enumerate(columns) if key not in ("label", "state")])
    if table and table[0].get("place") == 1 and columns is COLUMNS:
        print(f"best: {table[0]['label']}; go on with it: python -m studio keep {table[0]['run']}", file=sys.stderr)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "estimated_memory":
        return f"{value / 2**20:,.0f} MiB"
    if key == "share":
        return f"{value:.3g} %"
    if key == "trainable":
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.{3 if key.startswith('eval') else 1}f}"
    return str(value)
