"""Two answers and which of them is better: response_0, response_1, better_response_id; conversation_a, …_b, winner."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from studio import json_text
from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.fields import plain_text
from studio.data.formats.preference import COLUMNS as PREFERENCE
from studio.data.layouts import Layout
from studio.data.layouts.multiple_choice import FIRST
from studio.data.rated import number

VERDICTS = (
    *("better_response_id", "winner", "winner_id", "preference", "preferred", "better", "choice", "chosen", "verdict"),
    *("overall_preference", "human_preference", "labels", "label", "vote", "preference_strength"),
)
STRENGTHS = ("preference_strength", "overall_preference")  # HelpSteer's: below nought the first is better
ENDS = (("0", "1"), ("1", "2"), ("a", "b"), ("A", "B"))
SCORES = ("score", "rating", "reward", "overall_score", "winner_model")  # a number for each answer: score_0, score_1
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
    verdict = next((name for name in VERDICTS if isinstance(row.get(name), (str, int, float))), None)
    if verdict:
        return *pair, [verdict]
    scores = ([f"{stem}_{name[-1]}" for name in pair] for stem in SCORES)
    named = next((names for names in scores if all(number(row.get(name)) is not None for name in names)), None)
    return (*pair, named) if named else None


def rewrite(row: Row, columns: tuple[str, str, list[str]], report: ReportProblem) -> Row | None:
    first, second, verdict = columns
    values = [row[name] for name in verdict]
    if len(values) == 2:
        better = _by_sign(number(values[0]) - number(values[1]), first, second)
    else:
        better = _better(values[0], verdict[0], first, second, row.get(FIRST))
    if better is None:
        unsure = len(values) == 1 and _is_count(row, verdict[0], first)
        why = "Whether numbers count from 0 or from 1 is not known" if unsure else "A tie teaches nothing: drop the row"
        reason = f"It must name the better answer: {first} or {second}. {why}."
        return report("no_choice" if unsure else "wrong_type", verdict[0], values[0], reason)
    rest = without(row, first, second, FIRST, *verdict)
    asked = next((name for name in PREFERENCE["prompt"] if isinstance(row.get(name), dict)), None)
    if asked and (words := plain_text(row[asked])):  # WebGPT's
        rest = rest | {asked: words}
    question = next((name for name in ASKED if isinstance(row.get(name), (str, list))), None)
    if question and not any(name in row for name in PREFERENCE["prompt"]):
        rest = without(rest, question) | {"prompt": row[question]}
    answers = {"chosen": row[better], "rejected": row[second if better == first else first]}
    asked = next((name for name in PREFERENCE["prompt"] if name in rest), "prompt")
    lists = {name: _texts(value) for name, value in {asked: rest.get(asked), **answers}.items()}
    if not all(lists.values()):
        return rest | answers
    if max(map(len, lists.values())) > 1:  # as LMSYS writes them: each answer led to another conversation
        reason = "The two conversations hold several answers each: they must be the same up to one last answer."
        return report("wrong_type", second, row[second], reason)
    return rest | {name: texts[0] for name, texts in lists.items()}


def _texts(value: Any) -> list[str]:
    """The texts of a list, or of its JSON; [] for anything else."""
    if isinstance(value, str) and value[:1] == "[":
        try:
            value = json_text.read(value)
        except ValueError:
            return []
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else []


def _by_sign(difference: float, first: str, second: str) -> str | None:
    """The first where the difference is above nought, the second where below; None at nought."""
    if not difference:
        return None
    return first if difference > 0 else second


def _is_count(row: Row, verdict: str, first: str) -> bool:
    """Whether a verdict is a number of which the columns do not tell whether it counts from 0 or from 1."""
    is_number = not isinstance(row[verdict], bool) and str(row[verdict]).strip() in ("0", "1", "2")
    return is_number and verdict not in STRENGTHS and first[-1] != "0" and FIRST not in row


def counting(rows: list[Row]) -> int | None:
    """1 where some row of two answers calls the second one 2; None where no number tells from where they count."""
    found = ((row, match(row)) for row in rows)
    verdicts = [str(row[m[2][0]]).strip() for row, m in found if m and len(m[2]) == 1 and _is_count(row, m[2][0], m[0])]
    return 1 if "2" in verdicts else None


def _better(value: Any, verdict: str, first: str, second: str, counted_from: Any) -> str | None:
    """The column that a verdict names, by its whole name or by its end, as in model_a; None where it is not sure.

    counted_from: the number that names the first answer; None where it is not known.
    """
    if isinstance(value, bool):
        return None
    amount = number(value)
    if verdict in STRENGTHS and amount is not None:
        return _by_sign(-amount, first, second)
    word = str(value).strip() if amount is None else f"{amount:g}"
    if word[:1] == "-":
        return None
    end = re.split(r"[ _-]", word)[-1].lower()
    if (verdict, first) == ("preference", "output_1"):  # AlpacaFarm's
        return {"1": first, "2": second}.get(word)
    if word.isdigit() and first[-1] != "0":
        if counted_from is not None:
            return {int(counted_from): first, int(counted_from) + 1: second}.get(int(word))
        # whether it counts from 0 or from 1 is not known; but SHP's is
        return {"1": first, "0": second}.get(word) if verdict == "labels" and first[-1] in "aA" else None
    return {first[-1].lower(): first, second[-1].lower(): second}.get(end)


LAYOUTS = (Layout("two answers and which of them is better", match, rewrite, KEYS, order=40, texts=True),)
