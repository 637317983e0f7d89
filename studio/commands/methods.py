"""methods, compare-methods: what can be tuned how, and how well each method does on your data, measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from studio import config, model, preflight, queue, run
from studio.commands import Failed
from studio.commands.runs import follow
from studio.errors import OrderError
from studio.home import write_atomic
from studio.method import Method
from studio.methods import METHODS
from studio.presets import PRESETS

COLUMNS = (
    ("label", "method"),
    ("trainable", "trained"),
    ("share", "of model"),
    ("eval_loss_before", "loss before"),
    ("eval_loss", "loss after"),
    ("train_seconds", "seconds"),
    ("peak_memory", "peak memory"),
)


def add(parsers: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """methods [NAME], presets, compare-methods DATA."""
    listed = parsers.add_parser(
        "methods", parents=[common], help="the tuning methods, when to take which, and their knobs"
    )
    listed.add_argument("name", nargs="?", metavar="METHOD", help="one method's page of help")
    listed.set_defaults(run=listing, show=show)
    goals = parsers.add_parser("presets", parents=[common], help="settings by goal, as changes to an order")
    goals.set_defaults(run=lambda args: [preset._asdict() for preset in PRESETS.values()])
    compared = parsers.add_parser(
        "compare-methods", parents=[common], help="train every method on your data and print one table"
    )
    compared.add_argument("data", help="a data file, a Hub id or sample")
    compared.add_argument("--methods", metavar="A,B", help=f"only these of: {','.join(METHODS)}")
    compared.add_argument("--ranks", metavar="4,8,16", help="compare LoRA of several ranks instead of methods")
    compared.add_argument("--model", default="starter", help="the base model (starter)")
    compared.add_argument("--epochs", type=float, default=1, help="passes over the data for each (1)")
    compared.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change every order: --set training.batch_size=2",
    )
    compared.add_argument(
        "--save",
        metavar="FILE",
        type=Path,
        help="also write the table as JSON; rows already there are kept and not measured again",
    )
    compared.set_defaults(run=compare, show=show_table)


# -- methods


def listing(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every method, or one, with its knobs. Raises OrderError for an unknown name."""
    if args.name is not None and args.name not in METHODS:
        raise OrderError(f"There is no method {args.name!r}.", f"Methods: {', '.join(METHODS)}.", "method.name")
    return [described(kind) for name, kind in METHODS.items() if args.name in (None, name)]


def described(kind: type[Method]) -> dict[str, Any]:
    """A method as plain data: what it does, when to take it, what it allows, and its knobs."""
    return {
        "name": kind.model_fields["name"].default,
        "label": kind.label,
        "about": kind.about,
        "advice": kind.advice,
        "learning_rate": kind.learning_rate,
        "source": " ".join((kind.__doc__ or "").split()),
        "adapter": kind.adapter,
        "mergeable": kind.mergeable,
        "cannot_merge": kind.cannot_merge,
        "checkpointing": kind.allows_checkpointing,
        "packing": kind.allows_packing,
        "knobs": knobs(kind),
    }


def knobs(kind: type[Method]) -> list[dict[str, Any]]:
    """A method's knobs: key, title, help, default, bounds and choices, and whether beginners need it."""
    made = []
    for key, field in kind.model_json_schema()["properties"].items():
        if key == "name":
            continue
        options = [field, *field.get("anyOf", [])]
        bounds = {sign: option[word] for option in options for word, sign in SIGNS.items() if word in option}
        choices = next((option[word] for option in options for word in ("enum", "choices") if word in option), None)
        made.append(
            {
                "key": key,
                "title": field["title"],
                "help": field["description"],
                "default": field.get("default"),
                "bounds": bounds,
                "choices": choices,
                "advanced": bool(field.get("advanced")),
            }
        )
    return made


SIGNS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "maxItems": "at most",
    "maxLength": "letters",
}


def show(answer: list[dict[str, Any]]) -> None:
    for method in answer:
        print(f"{method['label']}  (method: {method['name']})\n  {method['about']}\n  {method['advice']}")
        merging = "can be merged" if method["mergeable"] else f"cannot be merged. {method['cannot_merge']}"
        print(f"  learning rate {method['learning_rate']:g}; {merging}")
        if len(answer) == 1:
            print(f"  {method['source']}")
        for knob in method["knobs"]:
            limits = " | ".join(map(str, knob["choices"] or ())) or ", ".join(
                f"{sign} {value}" for sign, value in knob["bounds"].items()
            )
            default = json.dumps(knob["default"], ensure_ascii=False)
            print(
                f"    {knob['key']:20} {default:14} {f'[{limits}]' if limits else ''}"
                f"{' advanced' if knob['advanced'] else ''}"
            )
            if len(answer) == 1:
                print(f"      {knob['help']}")
        print()


# -- compare-methods


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train each on the same data, one after the other, through the queue; the table as a list of rows."""
    orders = _orders(args)
    for order in orders:
        preflight.check(order)
    table = _known(args.save)
    for order in orders:
        if any(all(row.get(key) == value for key, value in _asked(order).items()) for row in table):
            continue
        one = queue.submit(order)
        print(f"{order.method.label}: run {one.id}", file=sys.stderr)
        follow(one)
        table.append(_row(order.method, one))
        if args.save and table[-1]["state"] == "finished":
            args.save.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.save, json.dumps([row for row in table if row["state"] == "finished"], indent=1) + "\n")
    if any(row["state"] != "finished" for row in table):
        raise Failed(table)
    return table


def _orders(args: argparse.Namespace) -> list[config.RunConfig]:
    """One order a method or rank; everything else alike, each at its own learning rate."""
    base = {"model": args.model, "data": {"train": args.data, "eval": 0.1}, "training": {"epochs": args.epochs}}
    if args.ranks:
        try:
            wanted = [{"name": "lora", "rank": int(rank)} for rank in args.ranks.split(",")]
        except ValueError:
            raise OrderError(
                f"--ranks {args.ranks!r} is no list of whole numbers.", "Write --ranks 4,8,16,32,64.", "--ranks"
            ) from None
    else:
        wanted = [{"name": name.strip()} for name in (args.methods.split(",") if args.methods else METHODS)]
    return [
        config.parse(yaml.safe_dump({**base, "method": method}), args.settings, where="compare-methods")
        for method in wanted
    ]


def _asked(order: config.RunConfig) -> dict[str, Any]:
    """What a row was measured on: a saved one is taken again only for the very same order."""
    plain = order.model_dump(mode="json", exclude_unset=True)
    return {
        "method": order.method.model_dump(mode="json"),
        "model": order.model.source,
        "data": order.data.train,
        "training": plain["training"],
    }


def _known(file: Path | None) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file and file.is_file() else []


def _row(method: Method, one: run.Run) -> dict[str, Any]:
    """What a finished run says of its method. Seconds of training alone, and of the whole run; memory in bytes."""
    told, parameters = run.summary(one), model.facts_of(one.config.model).parameters
    steps = [event for event in one.events() if event["kind"] == "step"]
    name = f"{method.label} {method.rank}" if getattr(method, "rank", None) else method.label
    held = method.quantized()
    return {
        "label": name,
        **_asked(one.config),
        "state": told["state"],
        "cause": told["cause"],
        "trainable": told["trainable"],
        "parameters": parameters,
        "share": round(100 * told["trainable"] / parameters, 4) if told["trainable"] else None,
        "base": held.kind if held else "whole",
        "steps": told["step"],
        "learning_rate": one.config.learning_rate,
        "eval_loss_before": told["eval_loss_before"],
        "eval_loss": told["eval_loss"],
        "train_seconds": steps[-1]["seconds"] if steps else None,
        "seconds": told["seconds"],
        "peak_memory": told["peak_memory"],
    }


def show_table(table: list[dict[str, Any]]) -> None:
    """The rows in columns, as wide as they need."""
    lines = [[title for _, title in COLUMNS], *([_cell(key, row[key]) for key, _ in COLUMNS] for row in table)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    for line in lines:
        print(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths))
            )
        )


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "peak_memory":
        return f"{value / 2**20:,.0f} MiB"
    if key == "share":
        return f"{value:.3g} %"
    if key == "trainable":
        return f"{value:,}"
    return f"{value:.3f}" if key.startswith("eval") else f"{value:.1f}" if isinstance(value, float) else str(value)
