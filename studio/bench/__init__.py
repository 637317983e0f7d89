"""What a user measures on this computer: one file each, found by looking into this folder. Each has add(parser), which
gives its options and sets run and show. What compares with other programs is in the checkout alone, in tests/bench/.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from studio.errors import StudioError
from studio.home import PROJECT

COMPARISONS = {  # of tests/bench/
    "busy": "how fast the page answers while a training uses the CPU, beside how fast it does alone.",
    "data": "a large file imported and checked, against merely parsing it: seconds, processor seconds, peak memory.",
    "page": "the served page in a headless Chromium, on a run that another process writes.",
    "train": "our training against TRL's, side by side, on the same model, rows, effective batch, steps and seed.",
}


def comparison(name: str) -> ModuleType:
    """A module of tests/bench/. Raises StudioError where the studio was installed without its checkout."""
    if not (PROJECT / "tests" / "bench" / f"{name}.py").is_file():
        raise StudioError(
            f"bench {name} compares with other programs, and is not part of the installed studio.",
            "Take the source (git clone), install requirements-dev.txt, and run it there.",
            "bench",
        )
    if str(PROJECT) not in sys.path:
        sys.path.insert(0, str(PROJECT))
    return importlib.import_module(f"tests.bench.{name}")
