"""Two answers and which of them is better: response_0, response_1, better_response_id; conversation_a, …_b, winner."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.passages import plain_text
from studio.data.formats.preference import COLUMNS as PREFERENCE
from studio.data.tracked_row import without

TITLE = "two answers and which of them is better"
TEXTS = True
ORDER = 40
VERDICTS = (
    *("better_response_id", "winner", "winner_id", "preference", "preferred", "better", "choice", "chosen", "verdict"),
    *("overall_preference", "human_preference", "labels", "label", "vote", "preference_strength"),
)
ENDS = (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B"))
SCORES = ("score", "rating", "reward", "overall_score")  # columns of a number for each answer: score_0, score_1
KEYS = frozenset((*VERDICTS, *(f"{stem}_{ends[0]}" for stem in SCORES for ends in ENDS)))
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


def match(row: Row) -> tuple[str, str, list[str]] | None:
    """The columns of both answers, and that of the verdict or those of the two scores."""
    pair = answer_columns(tuple(row))
    if not pair:
        return None
    verdict = next((name for name in VERDICTS if isinstance(row.get(name), (str, int))), None)
    if verdict:
        return *pair, [verdict]
    scores = ([f"{stem}_{name[-1]}" for name in pair] for stem in SCORES)
    numbers = (names for names in scores if all(isinstance(row.get(name), (int, float)) for name in names))
    named = next(numbers, None)
    return (*pair, named) if named else None


def rewrite(row: Row, report: ReportProblem) -> Row | None:
    first, second, verdict = match(row)
    values = [row[name] for name in verdict]
    if len(values) == 2:
        better = None if values[0] == values[1] else first if values[0] > values[1] else second
    else:
        better = _better(values[0], verdict[0], first, second)
    if better is None:
        reason = f"It must name the better answer: {first} or {second}. A tie teaches nothing: drop the row."
        report("wrong_type", verdict[0], values[0], reason)
        return None
    rest = without(row, first, second, *verdict)
    asked = next((name for name in PREFERENCE["prompt"] if isinstance(row.get(name), dict)), None)
    if asked and (words := plain_text(row[asked])):  # WebGPT's
        rest = rest | {asked: words}
    question = next((name for name in ASKED if isinstance(row.get(name), str)), None)
    if question and not any(name in row for name in PREFERENCE["prompt"]):
        rest = without(rest, question) | {"prompt": row[question]}
    return rest | {"chosen": row[better], "rejected": row[second if better == first else first]}


def _better(value: Any, verdict: str, first: str, second: str) -> str | None:
    """The column that a verdict names, by its whole name or by its end, as in model_a; None where it is not sure."""
    if isinstance(value, bool):
        return None
    if verdict == "preference_strength":  # HelpSteer's: below nought the first is better
        return first if value < 0 else second if value > 0 else None
    word = str(value).strip()
    end = re.split(r"[ _-]", word)[-1].lower()
    if word.isdigit() and first[-1] != "0":  # whether it counts from 0 or from 1 is not known; but SHP's is
        return {"1": first, "0": second}.get(word) if verdict == "labels" and first[-1] in "aA" else None
    return {first[-1].lower(): first, second[-1].lower(): second}.get(end)
