"""bench: what we claim, measured here: `bench train`, `bench memory`, … of studio/bench/ and tests/bench/."""

from __future__ import annotations

import importlib
import pkgutil
from argparse import REMAINDER, ArgumentParser, Namespace
from typing import Any

from studio import bench
from studio.errors import StudioError


def add(parsers: Any, common: ArgumentParser) -> None:
    """bench NAME, with the options of that bench."""
    inner = parsers.add_parser("bench", help="measure speed and memory on this computer").add_subparsers(
        dest="bench", required=True, metavar="WHAT"
    )
    for module in pkgutil.iter_modules(bench.__path__):
        bench_module = importlib.import_module(f"studio.bench.{module.name}")
        if hasattr(bench_module, "add"):
            bench_module.add(
                inner.add_parser(
                    module.name, parents=[common], help=(bench_module.__doc__ or "").splitlines()[0].partition(": ")[2]
                )
            )
    for name, about in bench.COMPARISONS.items():
        parser = inner.add_parser(name, parents=[common], help=about)
        try:
            bench.comparison(name).add(parser)
        except StudioError:
            parser.add_argument("rest", nargs=REMAINDER)
            parser.set_defaults(run=_not_here)


def _not_here(args: Namespace) -> Any:
    bench.comparison(args.bench)  # raises, and says where it is
