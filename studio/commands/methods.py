"""methods, settings, presets, recipes: what can be tuned how."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pydantic import BaseModel

from studio import config
from studio.base.source import ModelOrder
from studio.commands import Commands
from studio.data.order import DataOrder
from studio.errors import OrderError
from studio.evaluation.order import EvaluationOrder
from studio.knob import GROUPS, position
from studio.method import Method
from studio.methods import METHODS
from studio.presets import PRESETS
from studio.recipes import RECIPES
from studio.registry import attributes
from studio.training import Training

SECTIONS: dict[str, type[BaseModel]] = {
    "training": Training,
    "data": DataOrder,
    "model": ModelOrder,
    "evaluation": EvaluationOrder,
}


def add(commands: Commands) -> None:
    listed = commands.add("methods", "the tuning methods, when to take which, and their knobs", listing, show)
    listed.add_argument("name", nargs="?", metavar="METHOD", help="one method's page of help")
    about = "the settings of an order that belong to no method, in groups"
    found = commands.add("settings", about, settings, show_settings)
    found.add_argument("words", nargs="*", metavar="WORD", help="only those whose key, title or help has these words")
    about = "settings by goal, as changes to an order"
    commands.add("presets", about, lambda args: [preset._asdict() for preset in PRESETS.values()])
    cooked = commands.add("recipes", "complete orders with bundled data, to begin from", recipes, show_recipes)
    cooked.add_argument("name", nargs="?", metavar="RECIPE", help="one recipe's order, as YAML")


def listing(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every method, or one, with its knobs. Raises OrderError for an unknown name."""
    if args.name is not None and args.name not in METHODS:
        raise OrderError(f"There is no method {args.name!r}.", f"Methods: {', '.join(METHODS)}.", "method.name")
    return [described(kind) for name, kind in METHODS.items() if args.name in (None, name)]


def settings(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The knobs of each section of an order, by group."""
    listed = []
    for section, kind in SECTIONS.items():
        for knob in knobs(kind):
            text = f"{section}.{knob['key']} {knob['title']} {knob['help']}".lower()
            if all(word.lower() in text for word in args.words):
                listed.append({"section": section, **knob})
    return sorted(listed, key=lambda knob: position(knob["group"]))


def recipes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every recipe, or one. Raises OrderError for an unknown name."""
    if args.name is not None and args.name not in RECIPES:
        raise OrderError(f"There is no recipe {args.name!r}.", f"Recipes: {', '.join(RECIPES)}.", "recipe")
    return [
        recipe._asdict() | {"yaml": config.build(recipe.order).to_yaml()}
        for name, recipe in RECIPES.items()
        if args.name in (None, name)
    ]


def show_recipes(answer: list[dict[str, Any]]) -> None:
    """One: its order, to be sent into a file. Several: what each is for."""
    if len(answer) == 1:
        print(f"# {answer[0]['title']}. {answer[0]['about']}\n# {answer[0]['expect']}\n{answer[0]['yaml']}", end="")
        return
    for recipe in answer:
        print(f"{recipe['name']:12} {recipe['about']}\n{'':12} {recipe['expect']}")


def described(kind: type[Method]) -> dict[str, Any]:
    """A method as plain data: what it does, when to take it, what it allows, and its knobs."""
    return {
        "name": kind.model_fields["name"].default,
        **attributes(kind, "label", "about", "advice", "learning_rate", "adapter", "mergeable", "cannot_merge"),
        "source": " ".join((kind.__doc__ or "").split()),
        "checkpointing": kind.allows_checkpointing,
        "packing": kind.allows_packing,
        "knobs": knobs(kind),
    }


def knobs(kind: type[BaseModel]) -> list[dict[str, Any]]:
    """The knobs of a method, stage or section, ungrouped first: key, title, help, default, bounds, choices, group."""
    listed = []
    for key, field in kind.model_json_schema()["properties"].items():
        if key == "name":
            continue
        options = [field, *field.get("anyOf", [])]
        bounds = {sign: option[word] for option in options for word, sign in SIGNS.items() if word in option}
        choices = next((option[word] for option in options for word in ("enum", "choices") if word in option), None)
        listed.append(
            {
                "key": key,
                "title": field["title"],
                "help": field["description"],
                "default": field.get("default"),
                "bounds": bounds,
                "choices": choices,
                "advanced": bool(field.get("advanced")),
                "group": field.get("group"),
            }
        )
    return sorted(listed, key=lambda knob: position(knob["group"]))


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


def show_settings(answer: list[dict[str, Any]]) -> None:
    show_knobs([knob | {"key": f"{knob['section']}.{knob['key']}"} for knob in answer], True)


def show_knobs(knobs: list[dict[str, Any]], with_help: bool) -> None:
    """A line for each knob: key, default, choices or bounds; the groups of the advanced ones under their titles."""
    group = None
    for knob in knobs:
        if knob["group"] != group:
            group = knob["group"]
            print(f"   {GROUPS[group]}, advanced:")
        limits = " | ".join(map(str, knob["choices"] or ())) or ", ".join(
            f"{sign} {value}" for sign, value in knob["bounds"].items()
        )
        default = json.dumps(knob["default"], ensure_ascii=False)
        print(f"    {knob['key']:28} {default:14} {f'[{limits}]' if limits else ''}".rstrip())
        if with_help:
            print(f"      {knob['help']}")
