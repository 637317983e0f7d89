"""bench: what we claim, measured on this computer: `bench train`, `bench memory`, … one for each file in studio/bench/."""

from __future__ import annotations

import importlib
import pkgutil
from argparse import ArgumentParser
from typing import Any

from studio import bench


def add(parsers: Any, common: ArgumentParser) -> None:
    """bench NAME, with the options of that bench."""
    inner = parsers.add_parser("bench", help="measure speed and memory on this computer").add_subparsers(dest="bench", required=True, metavar="WHAT")
    for module in pkgutil.iter_modules(bench.__path__):
        one = importlib.import_module(f"studio.bench.{module.name}")
        if hasattr(one, "add"):
            one.add(inner.add_parser(module.name, parents=[common], help=(one.__doc__ or "").splitlines()[0].partition(": ")[2]))
