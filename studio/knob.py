"""A knob: a pydantic field whose description is the text below it. The groups of those behind the Advanced switch."""

from __future__ import annotations

import ast
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio import python_text

GROUPS = {
    "optimisation": "Optimisation",
    "precision": "Precision and memory",
    "evaluation": "Evaluation and saving",
    "loading": "Data loading and devices",
    "trackers": "Trackers",
}
_extras: list[dict[str, Any]] = [{"advanced": True, "group": name} for name in GROUPS]
OPTIMISATION, PRECISION, EVALUATION, LOADING, TRACKERS = _extras  # json_schema_extra of a field of that group


@lru_cache(maxsize=64)
def described(kind: type[BaseModel]) -> dict[str, str]:
    """The texts below a model's fields. pydantic's use_attribute_docstrings reads them too, but at every start."""
    texts = {}
    for base in reversed(kind.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        for field, below in pairwise(python_text.class_body(base)):
            text = getattr(getattr(below, "value", None), "value", None)
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(text, str):
                texts[field.target.id] = " ".join(text.split())
    return texts


def _describe(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    for name, field in schema.get("properties", {}).items():
        if name in described(kind):
            field.setdefault("description", described(kind)[name])


KNOBS = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_describe)


def position(group: str | None) -> int:
    """Where a group stands in a list; 0 for what a beginner sees, which has none."""
    return 0 if group is None else 1 + list(GROUPS).index(group)
