"""A knob: a pydantic field whose description is the text below it. The groups of those behind the Advanced switch."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

GROUPS = {
    "optimisation": "Optimisation",
    "precision": "Precision and memory",
    "evaluation": "Evaluation and saving",
    "loading": "Data loading and devices",
    "trackers": "Trackers",
}
_extras: list[dict[str, Any]] = [{"advanced": True, "group": name} for name in GROUPS]
OPTIMISATION, PRECISION, EVALUATION, LOADING, TRACKERS = _extras  # json_schema_extra of a field of that group


def _join_lines(schema: dict[str, Any]) -> None:
    """In a JSON schema each description is one line, as page, terminal and translations know it."""
    for field in schema.get("properties", {}).values():
        if "description" in field:
            field["description"] = " ".join(field["description"].split())


KNOBS = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, json_schema_extra=_join_lines)


def position(group: str | None) -> int:
    """Where a group stands in a list; 0 for what a beginner sees, which has none."""
    return 0 if group is None else 1 + list(GROUPS).index(group)
