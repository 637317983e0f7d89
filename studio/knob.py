"""The groups of the settings behind the Advanced switch, in the order of page, terminal and README."""

from __future__ import annotations

from typing import Any

GROUPS = {
    "optimisation": "Optimisation",
    "precision": "Precision and memory",
    "evaluation": "Evaluation and saving",
    "loading": "Data loading and devices",
    "trackers": "Trackers",
}
_extras: list[dict[str, Any]] = [{"advanced": True, "group": name} for name in GROUPS]
OPTIMISATION, PRECISION, EVALUATION, LOADING, TRACKERS = _extras  # json_schema_extra of a field of that group


def position(group: str | None) -> int:
    """Where a group stands in a list; 0 for what a beginner sees, which has none."""
    return 0 if group is None else 1 + list(GROUPS).index(group)
