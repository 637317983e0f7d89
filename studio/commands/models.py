"""models: what can be tuned on a device, by which method."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any

from studio import cards, choice, config, device
from studio.commands import Commands, size
from studio.forecast.fits import METHODS

LENGTH = 1024  # tokens of the rows that are asked about


def add(commands: Commands) -> None:
    parser = commands.add("models", "models that people tune, and by which method each fits this computer", run, show)
    parser.add_argument("--device", metavar="NAME", help="a card that need not be here, such as 'RTX 4060'")
    parser.add_argument("--memory", metavar="SIZE", help="a card with this much memory, such as 24GB")
    parser.add_argument("--fits", action="store_true", help="only those that fit")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every model of the catalogue and of this computer, under the names of the surface; bytes and tokens."""
    other = bool(args.device or args.memory)
    on = cards.device(args.device, args.memory) if other else device.devices()[0]
    order = config.build({"data": {"train": "rows.json", "max_length": LENGTH}})
    rows = choice.rows()
    found = choice.answers([row["model"] for row in rows], choice.Question(order, on, here=not other), _spread)
    listed = []
    for row in rows:
        answer = found[row["model"]]
        if args.fits and not any(fit.fits for fit in answer.fits.values()):
            continue
        listed.append(
            row
            | {
                "access": choice.access(row),
                "fits": {method: _plain(fit) for method, fit in answer.fits.items()},
                "smallest": answer.smallest,
            }
        )
    return listed


def _plain(fit: Any) -> dict[str, Any]:
    plain = fit._asdict() | {"total": fit.total or None}
    return {key: value for key, value in plain.items() if key != "seconds" and (key != "why" or value)}


def _spread(work: Callable[[str], Any], names: Iterable[str]) -> Iterable[Any]:
    """As `map`, shared among this computer's cores where the system can fork."""
    processes = min(8, device.cores())
    if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return map(work, names)
    with multiprocessing.get_context("fork").Pool(processes, initializer=gc.disable) as pool:
        return pool.map(work, list(names), chunksize=1)


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        answers = [
            f"{method} {size(answer['total'])}, rows up to {answer['max_length']:,}"
            for method in METHODS
            if (answer := row["fits"][method])["fits"]
        ]
        smallest = row["smallest"]
        if not answers:
            answers = [f"too large; {smallest['method']} fits {smallest['device']}" if smallest else "too large"]
        gated = " (gated)" if row["gated"] else ""
        licence = f", {row['licence']}{gated}" if row["licence"] else ""
        print(f"{row['model']}  {row['parameters'] / 1e9:.2f}B{licence}: {'; '.join(answers)}")
