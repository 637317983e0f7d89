"""What kind of answers a data set wants, from its references: labels, JSON, which script."""

from __future__ import annotations

import json
import statistics
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST_LABELS = 20
LABEL_CHARACTERS = 40
ROWS_PER_LABEL = 2  # at least, on average
SHORT = 60  # characters of a typical answer that can be expected to be the very same
MOSTLY = 0.9


class Task(NamedTuple):
    """labels: sorted, () where there are none. tokenizer: sacrebleu's. headline: the metric of the verdict."""

    labels: tuple[str, ...]
    json: bool
    tokenizer: str
    headline: str


def detect(references: Sequence[str], has_schema: bool = False, has_regex: bool = False) -> Task:
    """The task of these references."""
    known = [text for text in references if text.strip()]
    labels, is_json = _labels(known), bool(known) and sum(map(is_object, known)) / len(known) >= MOSTLY
    headline = "rouge_l"
    if labels:
        headline = "label_accuracy"
    elif is_json:
        headline = "json_equal"
    elif has_schema or has_regex:
        headline = "json_schema" if has_schema else "regex"
    elif known and statistics.median(map(len, known)) <= SHORT:
        headline = "exact_match"
    return Task(labels, is_json or has_schema, bleu_tokenizer(known), headline)


def label(text: str) -> str:
    """A text as a label: without case, surrounding blanks and punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    start, end = 0, len(folded)
    while start < end and _is_edge(folded[start]):
        start += 1
    while end > start and _is_edge(folded[end - 1]):
        end -= 1
    return " ".join(folded[start:end].split()) or folded


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")


def _labels(references: Sequence[str]) -> tuple[str, ...]:
    """The distinct references where they are few and short and each comes again: the classes of a classification."""
    labels = {label(text) for text in references}
    is_few = 2 <= len(labels) <= MOST_LABELS and len(references) >= ROWS_PER_LABEL * len(labels)
    is_short = all(len(text) <= LABEL_CHARACTERS and "\n" not in text.strip() for text in references)
    return tuple(sorted(labels)) if is_few and is_short else ()


def is_object(text: str) -> bool:
    """Whether a text is a JSON object or array, and nothing beside."""
    return isinstance(parsed(text), dict | list)


def parsed(text: str) -> Any:
    """The JSON value of a text; None where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def same_json(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not, and the order of keys is nothing."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same_json(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_json, first, second))
    return first == second


def bleu_tokenizer(references: Sequence[str]) -> str:
    """sacrebleu's tokenizer for these: zh for Chinese, char for Japanese, Korean and Thai, 13a for the rest.

    By what there is more to read of: five letters of an alphabet, about a word, weigh as much as one character.
    """
    han = other = alphabet = 0
    for character in "".join(references):
        if not character.isalpha():
            continue
        if is_han(character):
            han += 1
        elif is_unspaced(character):
            other += 1
        else:
            alphabet += 1
    if han + other <= alphabet / 5:
        return "13a"
    return "zh" if other < 0.1 * (han + other) else "char"


def is_han(character: str) -> bool:
    return (
        "\u4e00" <= character <= "\u9fff"
        or "\u3400" <= character <= "\u4dbf"
        or "\U00020000" <= character <= "\U0003ffff"
    )


def is_unspaced(character: str) -> bool:
    """Kana, Hangul, Thai, Lao, Khmer, Burmese: scripts whose words sacrebleu's 13a does not find."""
    return any(start <= character <= end for start, end in UNSPACED)


UNSPACED = (
    ("\u3040", "\u30ff"),
    ("\uac00", "\ud7a3"),
    ("\u0e00", "\u0eff"),
    ("\u1780", "\u17ff"),
    ("\u1000", "\u109f"),
)
