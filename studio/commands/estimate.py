"""estimate, devices: what an order will take, and what there is to take it from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from studio import cards, config, estimate, model
from studio.device import Device, devices

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def add(parsers: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """estimate CONFIG, devices."""
    parser = parsers.add_parser("estimate", parents=[common], help="memory, time and disk of an order, before it starts")
    parser.add_argument("config", type=Path, help="the order, a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting: --set method.rank=8")
    parser.add_argument("--device", metavar="NAME", help="a card that need not be here, such as 'NVIDIA A10G'")
    parser.add_argument("--memory", metavar="SIZE", help="a card with this much memory, such as 24GB")
    parser.set_defaults(run=run, show=show)
    listed = parsers.add_parser("devices", parents=[common], help="accelerators of this computer, and known cards")
    listed.set_defaults(run=list_devices, show=show_devices)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The estimate of an order under the names of the surface."""
    order = config.load(args.config, args.set)
    facts = model.facts_of(order.model)
    return estimate.estimate(facts, order, _device(args.device, args.memory)).model_dump(mode="json")


def _device(name: str | None, memory: str | None) -> Device:
    return cards.device(name, memory) if name or memory else devices()[0]


def show(answer: dict[str, Any]) -> None:
    print(f"{size(answer['total'])} expected ({size(answer['low'])} to {size(answer['high'])}), peak at {answer['peak_phase']}; "
          f"{'fits' if answer['fits'] else 'does NOT fit'} {answer['device']} with {size(answer['free'])} free")
    for cause, count in sorted(answer["by_cause"].items(), key=lambda item: -item[1]):
        print(f"  {cause:<12} {size(count):>12}")
    print(f"trains {answer['trainable']:,} of {answer['parameters']:,} parameters")


def size(count: float) -> str:
    """Bytes for people: 6.3 GiB."""
    for unit, name in UNITS:
        if abs(count) >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{int(count)} B"


def list_devices(args: argparse.Namespace) -> dict[str, Any]:
    """What is here, and the cards --device knows."""
    return {"here": [one.model_dump(mode="json") for one in devices()], "known": [{"name": card.name, "memory": card.memory} for card in cards.CARDS]}


def show_devices(answer: dict[str, Any]) -> None:
    for one in answer["here"]:
        print(f"{one['kind']}: {one['name']}, {size(one['memory'])}, {size(one['free'])} free")
    print("known to --device:", ", ".join(card["name"] for card in answer["known"]))
