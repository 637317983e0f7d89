"""bench: what we claim, measured here: `bench train`, `bench memory`, … of tests/bench/, which only a checkout has."""

from __future__ import annotations

import importlib
import sys
from argparse import REMAINDER, Namespace
from types import ModuleType
from typing import Any

from studio.commands import Commands
from studio.errors import StudioError
from studio.home import PROJECT

BENCHES = {  # modules of tests/bench/; each has add(parser), which gives its options and sets run and show
    "busy": "how fast the page answers while a training uses the CPU, beside how fast it does alone.",
    "data": "a large file imported and checked, against merely parsing it: seconds, processor seconds, peak memory.",
    "memory": "the estimate against what the trainer really took, or against what others measured (--published).",
    "pace": "how long runs were said to take, before their start and early on, against what they took.",
    "page": "the served page in a headless Chromium, on a run that another process writes.",
    "reach": "the largest model and longest rows that each card trains with QLoRA, LoRA and full, by the estimate.",
    "train": "our training against TRL's, side by side, on the same model, rows, effective batch, steps and seed.",
}


def add(commands: Commands) -> None:
    bench = commands.parsers.add_parser("bench", help="measure speed and memory on this computer")
    inner = Commands(bench.add_subparsers(dest="bench", required=True, metavar="WHAT"), commands.common)
    for name, about in BENCHES.items():
        parser = inner.add(name, about, _not_installed)
        try:
            load(name).add(parser)
        except StudioError:
            parser.add_argument("rest", nargs=REMAINDER)


def load(name: str) -> ModuleType:
    """A module of tests/bench/. Raises StudioError where the studio was installed without its checkout."""
    if not (PROJECT / "tests" / "bench" / f"{name}.py").is_file():
        message = f"bench {name} measures what the README claims, and is not part of the installed studio."
        hint = "Take the source (git clone), install requirements-dev.txt, and run it there."
        raise StudioError(message, hint, "bench")
    if str(PROJECT) not in sys.path:
        sys.path.insert(0, str(PROJECT))
    return importlib.import_module(f"tests.bench.{name}")


def _not_installed(args: Namespace) -> Any:
    load(args.bench)  # raises, and says where it is
