"""methods, presets: what can be tuned how."""

from __future__ import annotations

import argparse
import json
from typing import Any

from studio.errors import OrderError
from studio.method import Method
from studio.methods import METHODS
from studio.presets import PRESETS
from studio.stage import Stage


def add(parsers: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """methods [NAME], presets."""
    listed = parsers.add_parser(
        "methods", parents=[common], help="the tuning methods, when to take which, and their knobs"
    )
    listed.add_argument("name", nargs="?", metavar="METHOD", help="one method's page of help")
    listed.set_defaults(run=listing, show=show)
    goals = parsers.add_parser("presets", parents=[common], help="settings by goal, as changes to an order")
    goals.set_defaults(run=lambda args: [preset._asdict() for preset in PRESETS.values()])


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


def knobs(kind: type[Method] | type[Stage]) -> list[dict[str, Any]]:
    """A method's or stage's knobs: key, title, help, default, bounds and choices, and whether beginners need it."""
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
        show_knobs(method["knobs"], len(answer) == 1)
        print()


def show_knobs(knobs: list[dict[str, Any]], with_help: bool) -> None:
    """A line for each knob: key, default, choices or bounds."""
    for knob in knobs:
        limits = " | ".join(map(str, knob["choices"] or ())) or ", ".join(
            f"{sign} {value}" for sign, value in knob["bounds"].items()
        )
        default = json.dumps(knob["default"], ensure_ascii=False)
        print(
            f"    {knob['key']:20} {default:14} {f'[{limits}]' if limits else ''}"
            f"{' advanced' if knob['advanced'] else ''}"
        )
        if with_help:
            print(f"      {knob['help']}")
