"""The good answers of KTO data, learnt as plain answers. Never detected: the order says format: good."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, kto

TITLE = "Good answers only"
ABOUT = "Answers with a verdict, of which the good ones are learnt and the bad ones are left."
ORDER = 1001
COLUMNS = kto.COLUMNS


def convert(row: Row, report: ReportProblem) -> dict[str, Any] | None:
    conversation = kto.convert(row, report)
    if conversation is None:
        return None
    if not conversation["label"]:  # the verdict's column was named by hand
        return report("bad_answer", kto.labelled(row), False)
    return {key: value for key, value in conversation.items() if key != "label"}
