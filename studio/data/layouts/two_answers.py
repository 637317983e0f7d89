"""Two answers and which of them is better: response_0, response_1, better_response_id; conversation_a, …_b, winner."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.preference import COLUMNS as PREFERENCE
from studio.data.tracked_row import without

TITLE = "two answers and which of them is better"
TEXTS = True
ORDER = 40
VERDICTS = (
    *("better_response_id", "winner", "winner_id", "preference", "preferred", "better", "choice", "chosen", "verdict"),
    *("overall_preference", "human_preference", "labels", "label", "vote"),
)
KEYS = frozenset(VERDICTS)
ENDS = (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B"))
ANSWER = re.compile(r"(.*(?:response|answer|completion|output|conversation|ref|summary|reply|text|chat|messages).*?)"
                    r"[ _-]?([012abAB])$")  # fmt: skip
ASKED = ("history", "post", "context", "title")  # columns of the question, where none of the usual ones is there


@lru_cache(maxsize=1024)
def answer_columns(columns: tuple[str, ...]) -> tuple[str, str] | None:
    """The two columns that differ only in the number or letter at their end."""
    stems: dict[str, dict[str, str]] = {}
    for name in columns:
        if end := ANSWER.match(name):
            stems.setdefault(end[1], {})[end[2]] = name
    for ends in stems.values():
        for pair in ENDS:
            if set(pair) == set(ends):
                return ends[pair[0]], ends[pair[1]]
    return None


def match(row: Row) -> tuple[str, str, str] | None:
    """The columns of both answers and of the verdict."""
    pair = answer_columns(tuple(row))
    verdict = next((name for name in VERDICTS if isinstance(row.get(name), (str, int))), None)
    return (*pair, verdict) if pair and verdict else None


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    first, second, verdict = match(row)
    better = _better(row[verdict], verdict, first, second)
    if better is None:
        reason = f"It must name the better answer: {first} or {second}. A tie teaches nothing: drop the row."
        report("wrong_type", verdict, row[verdict], reason)
        return None
    rest = without(row, first, second, verdict)
    question = next((name for name in ASKED if isinstance(row.get(name), str)), None)
    if question and not any(name in row for name in PREFERENCE["prompt"]):
        rest = without(rest, question) | {"prompt": row[question]}
    return rest | {"chosen": row[better], "rejected": row[second if better == first else first]}


def _better(value: Any, verdict: str, first: str, second: str) -> str | None:
    """The column that a verdict names, by its whole name or by its end, as in model_a; None where it is not sure."""
    if isinstance(value, bool):
        return None
    word = str(value).strip()
    end = re.split(r"[ _-]", word)[-1].lower()
    if word.isdigit() and first[-1] != "0":  # whether it counts from 0 or from 1 is not known; but SHP's is
        return {"1": first, "0": second}.get(word) if verdict == "labels" and first[-1] in "aA" else None
    return {first[-1].lower(): first, second[-1].lower(): second}.get(end)
