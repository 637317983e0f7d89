"""Pairs of answers from a file of ratings: of the answers to one prompt a better rated one and a worse rated one.

Two layouts: a row for each answer (prompt, answer, rating), or a row for each prompt with its rated answers in a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from studio.data.formats import as_row
from studio.data.rated import ANSWERS, LISTS, PROMPTS, RATINGS, rated
from studio.data.reading import raw_rows
from studio.errors import DataError


def pairs_of(source: str, margin: float = 0.0, every: bool = False) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(rows, left out) of a source: {prompt, chosen, rejected, score_chosen, score_rejected, system?}; {why: count}.

    margin: by how much two ratings must differ at least, beside differing at all.

    every: all pairs of answers to a prompt instead of the best and the worst. Raises DataError where it holds none.
    """
    answers: dict[tuple[str, str], dict[str, float]] = {}
    unreadable = 0
    for row in map(as_row, raw_rows(source)):
        rated_answers = list(rated(row)) if isinstance(row, dict) else []
        unreadable += not rated_answers
        for each in rated_answers:
            answers.setdefault(each.prompt, {})[each.answer] = each.rating
    if not answers:
        raise DataError(
            f"{source} holds no rated answers.",
            f"Each row needs a prompt ({', '.join(PROMPTS[:3])}), an answer ({', '.join(ANSWERS[:3])}) and a number "
            f"({', '.join(RATINGS[:3])}); or a prompt and a list of rated answers ({', '.join(LISTS[:3])}).",
            source,
        )
    rows, left_out = [], {"rows without a rated answer": unreadable, "prompts with one answer": 0, "ties": 0}
    for (system, prompt), ratings in answers.items():
        made = list(_pairs(ratings, margin, every))
        left_out["prompts with one answer"] += len(ratings) < 2
        left_out["ties"] += len(ratings) > 1 and not made
        head = {"system": system, "prompt": prompt} if system else {"prompt": prompt}
        for better, worse in made:
            scores = {"score_chosen": ratings[better], "score_rejected": ratings[worse]}
            rows.append({**head, "chosen": better, "rejected": worse, **scores})
    if not rows:
        raise DataError(
            f"{source} holds rated answers of {len(answers)} prompts, but no two to one prompt whose ratings differ.",
            "Pairs need at least two answers to the same prompt with different ratings.",
            source,
        )
    return rows, {why: count for why, count in left_out.items() if count}


def _pairs(rated: dict[str, float], margin: float, every: bool) -> Iterator[tuple[str, str]]:
    """(better, worse) answers; the earlier one of equally rated ones counts as best and as worst."""
    if len(rated) < 2:
        return
    ends = [(max(rated, key=rated.__getitem__), min(rated, key=rated.__getitem__))]
    for first, second in combinations(rated, 2) if every else ends:
        better, worse = (first, second) if rated[first] >= rated[second] else (second, first)
        if rated[better] > rated[worse] and rated[better] - rated[worse] >= margin:
            yield better, worse
