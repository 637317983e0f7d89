"""Answers with their places in a context, as SQuAD has them: {"context", "question", "answers": {"text": […], …}}."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.prompt import COLUMNS

TITLE = "answers with their places in a context, as in SQuAD, of which the first is learnt"
NAMES = ("answers", "answer", "answers_spans", "answer_spans")
TEXTS_IN = ("text", "spans", "value")  # of the object
PLACES = frozenset(("answer_start", "answer_end", "start", "end", "types", "aliases", "normalized_value"))
KEYS = frozenset(NAMES)


def match(row: Row) -> tuple[str, Any] | None:
    """(the column of the answers, the answer that is learnt; None where there is none)."""
    if not any(isinstance(row.get(name), str) for name in COLUMNS["prompt"]):
        return None
    for name in NAMES:
        value = row.get(name)
        if value == [] and name == "answers":
            return name, None
        if isinstance(value, list) and value and all(isinstance(v, dict) and "answer_start" in v for v in value):
            return name, value[0].get("text")
        if isinstance(value, dict) and not PLACES.isdisjoint(value):
            texts = next((value[key] for key in TEXTS_IN if key in value), None)
            text = texts[0] if isinstance(texts, list) and texts else texts
            return name, text if isinstance(text, str) else None
    return None


def rewrite(row: Row, answered: tuple[str, Any], report: ReportProblem) -> Row | None:
    name, answer = answered
    if not isinstance(answer, str) or not answer.strip():
        return report("empty_field", name, row[name], "The question has no answer in this row.")
    return without(row, name) | {"answer": answer}
