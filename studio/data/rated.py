"""Rated answers in a row: a prompt with an answer and its rating, or a prompt with its rated answers in a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from studio.data.formats import as_row

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
    return bool(rows) and sum(any(True for _ in rated(row)) for row in rows) > len(rows) / 2


def rated(row: dict[str, Any]) -> Iterator[Rated]:
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
            rating = number(beside[place])
            if rating is not None:
                yield Rated(key, answer, sign * rating)


def _of_answer(key: tuple[str, str], fields: dict[str, Any]) -> Iterator[Rated]:
    """An object with an answer and its rating, where it is one."""
    answer = next((fields[name] for name in ANSWERS if _is_text(fields.get(name))), None)
    name = next((name for name in RATINGS if number(fields.get(name)) is not None), None)
    if answer is not None and name is not None:
        rating = number(fields[name])
        assert rating is not None
        yield Rated(key, answer, -rating if name in LOWER_IS_BETTER else rating)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def number(value: Any) -> float | None:
    """A finite number, also one written as text (a cell of a CSV file)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number - number == 0 else None
