"""The chosen answers of preference data, learnt as plain answers. Never detected: the order says format: chosen."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, preference

TITLE = "Chosen answers only"
ABOUT = "Preference pairs of which the chosen answer is learnt and the rejected one is left."
ORDER = 1000
COLUMNS = preference.COLUMNS


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    """The rejected answer is not looked at: it may be empty."""

    def of_what_is_learnt(kind: str, field: str | None = None, *more: Any, **named: Any) -> None:
        if field != "rejected":
            report(kind, field, *more, **named)

    conversation = preference.convert({**row, "rejected": row.get("chosen")}, of_what_is_learnt)
    if conversation is None:
        return None
    return {key: value for key, value in conversation.items() if not key.startswith("rejected")}
