"""Rows that a model wrote about a passage: read out of its reply, and marked where they need a look."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from studio.errors import OrderError, wrong_setting
from studio.evaluation.endpoint import EndpointOrder, check_url

KEY = "STUDIO_MAKE_KEY"
SUPPORTED = 0.5  # share of an answer's words that the passage has, from which on it counts as supported
ALIKE = 0.8  # share of common words from which on two questions are near-repeats
PROMPT = """Below is a passage of a document. Write {count} different questions that a reader could ask and that the
passage alone answers, each with its answer. Write in the language of the passage. Use only what the passage says, name
what you mean instead of pointing to "the passage", and leave nothing out of an answer that the passage says about it.

[Document]
{document}

[Heading]
{heading}

[Passage]
{passage}

Reply with a JSON list and nothing else: [{"question": "…", "answer": "…"}]"""
SLOT = re.compile(r"\{(count|document|heading|passage)\}")
WORD = re.compile(r"[^\W_]+")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
SMALL = re.compile(r"starter|(?<![\d.])(\d{2,3}m|0?\.\d+b)(?![a-z])", re.IGNORECASE)  # in a model's name
SMALL_NOTE = "A model as small as {} seldom writes rows worth training on: take one of 3 billion weights or more."


class MakeOrder(EndpointOrder):
    """Who writes the rows, how many, and for how long."""

    prompt: str = Field(PROMPT, max_length=20_000)
    per_passage: int = Field(3, ge=1, le=20)
    passages: int = Field(200, ge=1, le=5000)
    minutes: float = Field(60, gt=0, le=24 * 60)


class Row(NamedTuple):
    """A question with its answer, the passage it is from, and what is to be looked at: unsupported, repeat."""

    question: str
    answer: str
    passage: int
    marks: tuple[str, ...]


def order_of(settings: dict[str, Any]) -> MakeOrder:
    """The order from settings. Raises OrderError: a wrong setting, a prompt without the passage, a forbidden URL."""
    try:
        order = MakeOrder.model_validate(settings)
    except ValidationError as error:
        raise wrong_setting(error, "make") from error
    if "{passage}" not in order.prompt:
        hint = "Write {passage} where it belongs; {count}, {document} and {heading} are optional."
        raise OrderError("The prompt has no place for the passage.", hint, "make.prompt")
    check_url(order.url, KEY, "make.url")
    return order


def small_note(model: str) -> str:
    """A caution where a model's name tells that it is too small; else ""."""
    return SMALL_NOTE.format(model) if SMALL.search(model) else ""


def filled(prompt: str, values: dict[str, Any]) -> str:
    return SLOT.sub(lambda slot: str(values[slot[1]]), prompt)


def read_reply(reply: str) -> list[tuple[str, str]]:
    """(question, answer) of each row in a reply, whatever stands around the list; [] where none can be read."""
    decoder = json.JSONDecoder(strict=False)
    for start in (match.start() for match in re.finditer(r"[\[{]", reply)):
        try:
            value, _ = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            value = next((part for part in value.values() if isinstance(part, list)), [value])
        pairs = [_pair(item) for item in value if isinstance(item, dict)]
        if any(pairs):
            return [pair for pair in pairs if pair]
    return []


def _pair(item: dict[str, Any]) -> tuple[str, str] | None:
    question, answer = item.get("question"), item.get("answer")
    if isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip():
        return question.strip(), answer.strip()
    return None


def marked(question: str, answer: str, passage: int, text: str, before: Iterable[Row]) -> Row:
    """The row with its marks. text: of the passage. before: the rows so far."""
    marks = []
    answer_words, known = words(answer), words(text)
    if answer_words and len(answer_words & known) / len(answer_words) < SUPPORTED:
        marks.append("unsupported")
    asked = words(question)
    if any(_alike(asked, words(row.question)) for row in before):
        marks.append("repeat")
    return Row(question, answer, passage, tuple(marks))


def _alike(left: frozenset[str], right: frozenset[str]) -> bool:
    return bool(left) and len(left & right) >= ALIKE * len(left | right)


@lru_cache(maxsize=16_384)  # every new question is held against all before it
def words(text: str) -> frozenset[str]:
    """The words of a text, in lower case; of Chinese, Japanese and Korean the pairs of neighbouring characters."""
    text = unicodedata.normalize("NFKC", text).casefold()
    found: set[str] = set()
    for word in WORD.findall(text):
        if CJK.search(word):
            found |= {word[index : index + 2] for index in range(max(1, len(word) - 1))}
        else:
            found.add(word)
    return frozenset(found)
