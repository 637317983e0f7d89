"""Scores of one answer: shares and similarities from 0 to 1, BLEU and chrF from 0 to 100 as sacrebleu has them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import regex

from studio.evaluation import schema
from studio.evaluation.order import EvaluationOrder
from studio.evaluation.task import Task, is_han, is_object, is_unspaced, label, parsed, same_json

THOUGHT = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
REGEX_SECONDS = 1.0
WORDS = re.compile(r"\w+")

NAMES = (  # in the order in which they are shown
    "exact_match",
    "label_accuracy",
    "macro_f1",
    "json_valid",
    "json_schema",
    "json_equal",
    "regex",
    "chrf",
    "bleu",
    "rouge_l",
    "length",
    "ended",
)


def final(text: str) -> str:
    """What an answer says after its reasoning."""
    return THOUGHT.sub("", text).strip()


def score(answer: Mapping[str, Any], reference: str, task: Task, order: EvaluationOrder) -> dict[str, float]:
    """The scores of an answer {text, finish, tokens} against a reference."""
    text, expected = final(answer["text"]), final(reference)
    scores: dict[str, float] = {"exact_match": float(_plain(text) == _plain(expected))}
    if task.labels:
        scores["label_accuracy"] = float(label(text) == label(expected))
    if task.json:
        scores["json_valid"] = float(is_object(text))
        if is_object(expected):
            scores["json_equal"] = float(is_object(text) and same_json(parsed(text), parsed(expected)))
    if order.json_schema is not None:
        scores["json_schema"] = float(is_object(text) and schema.fulfils(parsed(text), order.json_schema))
    if order.regex:
        scores["regex"] = float(matches(order.regex, text))
    scores["chrf"] = chrf().sentence_score(text, [expected]).score
    scores["bleu"] = bleu(task.tokenizer, True).sentence_score(text, [expected]).score
    scores["rouge_l"] = rouge_l(text, expected)
    scores["length"] = float(answer["tokens"])
    scores["ended"] = float(answer["finish"] == "stop")
    return scores


def _plain(text: str) -> str:
    """The text without differences that are only blanks."""
    return " ".join(text.split())


def matches(pattern: str, text: str) -> bool:
    """Whether a whole text matches; False where the search takes longer than REGEX_SECONDS."""
    try:
        return regex.fullmatch(pattern, text, timeout=REGEX_SECONDS) is not None
    except TimeoutError:
        return False


@functools.cache
def chrf() -> Any:
    from sacrebleu.metrics import CHRF  # late: a second of imports

    return CHRF()


@functools.cache
def bleu(tokenizer: str, sentence: bool = False) -> Any:
    """sentence: of one sentence, with no more n-gram orders than it has words (sacrebleu's effective_order)."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer, effective_order=sentence)


class RougeTokens:
    """rouge-score's tokenizer: words in lower case, and every character of a script without blanks for itself.

    Its own one keeps only a to z and digits, so that Chinese has no words at all.
    """

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        for word in WORDS.findall(text.lower()):
            run = ""
            for character in word:
                if is_han(character) or is_unspaced(character):
                    tokens += [run, character] if run else [character]
                    run = ""
                else:
                    run += character
            tokens += [run] if run else []
        return tokens


@functools.cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=RougeTokens())


def rouge_l(text: str, reference: str) -> float:
    """The F-measure of the longest common subsequence of words (Lin 2004)."""
    return float(_rouge().score(reference, text)["rougeL"].fmeasure)


def change(before: str, after: str) -> float:
    """How far an answer moved: 0 the same, 1 nothing in common (by chrF)."""
    if final(before) == final(after):
        return 0.0
    return round(1 - chrf().sentence_score(final(after), [final(before)]).score / 100, 4)
