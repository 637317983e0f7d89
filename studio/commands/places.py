"""places: where a run can be trained, with the knobs and, for rented computers, memory and price."""

from __future__ import annotations

import argparse
from typing import Any

from studio import cards
from studio.commands import Commands, size
from studio.commands.methods import knobs
from studio.place import Place
from studio.places import PLACES
from studio.places.job import FLAVOURS
from studio.registry import attributes


def add(commands: Commands) -> None:
    commands.add("places", "where a run can be trained: here, over SSH, as a Hugging Face Job", listing, show)


def listing(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every place as plain data; a Job with its hardware."""
    return [described(kind) for kind in PLACES.values()]


def described(kind: type[Place]) -> dict[str, Any]:
    name = kind.model_fields["kind"].default
    made = {
        "kind": name,
        "label": kind.label,
        "about": kind.about,
        "knobs": [knob for knob in knobs(kind) if knob["key"] != "kind"],
    }
    return made | ({"hardware": hardware()} if name == "job" else {})


def hardware() -> list[dict[str, Any]]:
    """What a Job can be ordered on: card, how many, bytes of one card, RAM in bytes, US dollars an hour."""
    return [
        {
            "flavor": flavor,
            **attributes(one, "card", "count"),
            "memory": cards.device(one.card).memory if one.card else None,
            **attributes(one, "ram", "price"),
        }
        for flavor, one in FLAVOURS.items()
    ]


def show(answer: list[dict[str, Any]]) -> None:
    for place in answer:
        print(f"{place['label']}  (place: {place['kind']})\n  {place['about']}")
        for knob in place["knobs"]:
            print(f"  place.{knob['key']:<10} {knob['help']}")
        for one in place.get("hardware", ()):
            card = f"{one['count']} × {one['card']}, {size(one['memory'])}" if one["card"] else "CPU"
            print(f"    {one['flavor']:<14} {card:<36} {size(one['ram']):>12} RAM   ${one['price']:.2f} an hour")
