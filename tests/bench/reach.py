"""bench reach: the largest model and longest rows that each card trains with QLoRA, LoRA and full, by the estimate."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio import cards, config, model
from studio.base import catalogue
from studio.config import RunConfig
from studio.device import Device
from studio.errors import OrderError
from studio.forecast.fits import METHODS, Fit, fit, with_method
from studio.model import ModelFacts

CARDS = {
    "8 GB": "RTX 4060",
    "12 GB": "RTX 3060 12GB",
    "16 GB": "RTX 4080",
    "24 GB": "RTX 4090",
    "48 GB": "RTX A6000",
    "80 GB": "A100 80GB",
}
COMPARED = "meta-llama/Llama-3.1-8B"  # whose longest rows are told of every card
ROWS = 1024  # tokens of a row with which a model counts as fitting


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `bench reach`."""
    parser.add_argument("--device", action="append", metavar="CARD", help="a card; as often as wanted")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.set_defaults(run=measure, show=show)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a card and a method. Computed: nothing is trained."""
    names = {name: name for name in args.device} if args.device else CARDS
    rows = [row for label, name in names.items() for row in reach(label, cards.device(name))]
    if args.save:
        args.save.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return rows


def reach(label: str, device: Device) -> Iterator[dict[str, Any]]:
    """A row a method: the largest model that fits with rows of ROWS tokens, and the longest rows."""
    order = config.build({"data": {"train": "rows.json", "max_length": ROWS}})
    names = sorted(catalogue.entries(), key=lambda name: -catalogue.entries()[name]["parameters"])
    for method in reversed(METHODS):
        chosen = with_method(order, method)
        found = next(((name, answer) for name in names if (answer := _fit(model_facts(name), chosen, device))), None)
        compared = _fit(model_facts(COMPARED), chosen, device)
        yield {
            "card": label,
            "name": device.name,
            "method": method,
            "largest": found[0] if found else None,
            "parameters": catalogue.entries()[found[0]]["parameters"] if found else None,
            "rows": found[1].max_length if found else None,
            "rows_8b": compared.max_length if compared else None,
        }


def model_facts(name: str) -> ModelFacts:
    facts = model.from_catalogue(name)
    assert facts is not None, name
    return facts


def _fit(facts: ModelFacts, order: RunConfig, device: Device) -> Fit | None:
    try:
        answer = fit(facts, order, device)
    except OrderError:
        return None
    return answer if answer.fits else None


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people, as Markdown."""
    print(f"| card | method | largest model | its longest rows | longest rows of {COMPARED} |\n|---|---|---|---|---|")
    for row in rows:
        cells = (row["card"], row["method"], row["largest"], row["rows"], row["rows_8b"])
        print("| " + " | ".join("—" if cell is None else str(cell) for cell in cells) + " |")
