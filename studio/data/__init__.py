"""Data: any instruction file in, and exactly what will be trained on shown before launch.

The names below are fetched when first used: who needs only the order's fields, as the page does when it starts, does
not wait for Arrow.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "check": "checking",
    "Conversations": "dataset",
    "Dataset": "dataset",
    "DataOrder": "order",
    "Prepared": "encoding",
    "prepare": "preparing",
    "KINDS": "problem",
    "Problem": "problem",
    "is_local": "hub",
    "locate": "reading",
    "classification_mapping": "column_names",
    "columns": "reading",
    "first_rows": "reading",
    "read": "reading",
    "samples": "sample",
    "split": "splitting",
    "statistics": "lengths",
    "TemplateProblems": "lengths",
    "held_out": "preparing",
    "trained_on": "preparing",
    "training_examples": "preparing",
    "cautions": "examples",
    "check_found": "reading",
    "fingerprints": "reading",
    "check_references": "reading",
    "read_for": "reading",
    "asked_of": "examples",
    "leak_note": "leaks",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
