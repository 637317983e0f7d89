"""Pairs of answers from a file of ratings: of the answers to one prompt a better rated one and a worse rated one.

Two layouts: a row for each answer (prompt, answer, rating), or a row for each prompt with its rated answers in a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

from studio.data.formats import as_row
from studio.data.reading import raw_rows
from studio.errors import DataError

PROMPTS = ("prompt", "question", "instruction", "query", "input")
ANSWERS = ("response", "answer", "output", "completion", "text", "content", "reply", "generated_text")
RATINGS = ("rating", "score", "overall_score", "stars", "grade", "mark", "quality", "reward", "human_rating", "rank",
           "ranking")  # fmt: skip
LISTS = ("completions", "responses", "answers", "outputs", "candidates", "generations")
LIST_RATINGS = ("ratings", "scores", "rewards", "ranks")
LOWER_IS_BETTER = ("rank", "ranking", "ranks")
LOOKED_AT = 50  # rows from which it is told whether a file holds ratings


class Rated(NamedTuple):
    """One answer. prompt: with the system prompt first, "" where there is none."""

    prompt: tuple[str, str]
    answer: str
    rating: float


def has_ratings(rows: Iterable[Any]) -> bool:
    """Whether most of the first rows hold rated answers."""
    rows = [row for row in map(as_row, rows) if isinstance(row, dict)][:LOOKED_AT]
    return bool(rows) and sum(any(True for _ in _rated(row)) for row in rows) > len(rows) / 2


def pairs_of(source: str, margin: float = 0.0, every: bool = False) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(rows, left out) of a source: {prompt, chosen, rejected, score_chosen, score_rejected, system?}; {why: count}.

    margin: by how much two ratings must differ at least, beside differing at all.

    every: all pairs of answers to a prompt instead of the best and the worst. Raises DataError where it holds none.
    """
    answers: dict[tuple[str, str], dict[str, float]] = {}
    unreadable = 0
    for row in map(as_row, raw_rows(source)):
        rated = list(_rated(row)) if isinstance(row, dict) else []
        unreadable += not rated
        for one in rated:
            answers.setdefault(one.prompt, {})[one.answer] = one.rating
    if not answers:
        raise DataError(
            f"{source} holds no rated answers.",
            f"Each row needs a prompt ({', '.join(PROMPTS[:3])}), an answer ({', '.join(ANSWERS[:3])}) and a number "
            f"({', '.join(RATINGS[:3])}); or a prompt and a list of rated answers ({', '.join(LISTS[:3])}).",
            source,
        )
    rows, left_out = [], {"rows without a rated answer": unreadable, "prompts with one answer": 0, "ties": 0}
    for (system, prompt), rated in answers.items():
        made = list(_pairs(rated, margin, every))
        left_out["prompts with one answer"] += len(rated) < 2
        left_out["ties"] += len(rated) > 1 and not made
        head = {"system": system, "prompt": prompt} if system else {"prompt": prompt}
        for better, worse in made:
            scores = {"score_chosen": rated[better], "score_rejected": rated[worse]}
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


def _rated(row: dict[str, Any]) -> Iterator[Rated]:
    """The rated answers of a row."""
    name = next((name for name in PROMPTS if _is_text(row.get(name))), None)
    if name is None:
        return
    prompt = row[name]
    if name == "instruction" and _is_text(row.get("input")):
        prompt = f"{prompt}\n{row['input']}"
    key = (row["system"] if _is_text(row.get("system")) else "", prompt)
    many = next((row[name] for name in LISTS if isinstance(row.get(name), list)), None)
    if many is None:
        rest = {other: value for other, value in row.items() if other != name}
        yield from _of_answer(key, rest)
        return
    beside = next((row[name] for name in LIST_RATINGS if isinstance(row.get(name), list)), None)
    sign = -1 if any(isinstance(row.get(name), list) for name in LOWER_IS_BETTER) else 1
    for place, answer in enumerate(many):
        if isinstance(answer, dict):
            yield from _of_answer(key, answer)
        elif _is_text(answer) and beside is not None and place < len(beside):
            rating = _number(beside[place])
            if rating is not None:
                yield Rated(key, answer, sign * rating)


def _of_answer(key: tuple[str, str], fields: dict[str, Any]) -> Iterator[Rated]:
    """An object with an answer and its rating, where it is one."""
    answer = next((fields[name] for name in ANSWERS if _is_text(fields.get(name))), None)
    name = next((name for name in RATINGS if _number(fields.get(name)) is not None), None)
    if answer is not None and name is not None:
        rating = _number(fields[name])
        assert rating is not None
        yield Rated(key, answer, -rating if name in LOWER_IS_BETTER else rating)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _number(value: Any) -> float | None:
    """A finite number, also one written as text (a cell of a CSV file)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number - number == 0 else None
