"""Questions with choices, and which of them is right: MMLU, ARC, HellaSwag, C-Eval, RACE, MedQA.

The choices stand in a list, an object or columns of their own; the right one is named by letter, number or words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from studio.data.formats import ReportProblem, Row, without
from studio.data.formats.prompt import COLUMNS, MORE_ANSWERS
from studio.data.layouts import Layout

FIRST = "first_choice"  # key of a mapping: whether numbers name the choices from 0 or from 1 on


def _with_capitals(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *(name.capitalize() for name in names))))


QUESTIONS = _with_capitals("question", "question_stem", "stem", "题目", *COLUMNS["prompt"], "ctx", "goal", "sentence")
LISTS = _with_capitals("choices", "options", "endings", "candidates", "alternatives", "answer_choices", "mc1_targets",
                       "选项", "answers")  # fmt: skip
LEARNT = frozenset((*COLUMNS["answer"], *MORE_ANSWERS))
ANSWERS = _with_capitals(
    *("answerKey", "answer_key", "answer_idx", "answer_index", "answer_id", "answer_label", "correct_index"),
    *("correct_answer_index", "correct_option", "correct_choice", "correct", "cop", "gold", "gold_label", "label"),
    *("正确答案", *COLUMNS["answer"], *MORE_ANSWERS),
)
STEMS = ("", "option", "choice", "ending", "sol", "op", "opt", "answer", "Option", "Choice", "选项")
KEYS = frozenset(LISTS) | {f"{stem}{sign}{end}" for stem in STEMS for sign in ("", "_", " ", "-") for end in "Aa01"}
COLUMN = re.compile(rf"({'|'.join(STEMS)})[ _-]?([A-Ja-j]|\d)")
MARK = re.compile(r"\(?(?:([A-Ja-j])\s?[).:、．]\s*|(\d)\s?(?:\)|[.:、．]\s)\s*)")  # before a choice: A) (A) A. 1)
MARKS = re.compile(r"(?:^|[\n,;])\s*(?=\(?[A-Ja-j]\s?[).:、．]\s)")
QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
SEVERAL = re.compile(r"[A-J]+|[A-Ja-j](?:\s*[,;/&、]\s*[A-Ja-j])*")  # letters of choices: AB, A, B
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Choices(NamedTuple):
    """columns: that hold them. labels, texts: of each. right: those that are marked as right where they stand."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    right: tuple[int, ...] = ()
    marked: bool = False  # the texts begin with their letters

    def lines(self, chosen: Sequence[int]) -> str:
        """Some of the choices, a line each, with their letters."""
        return "\n".join(self.texts[n] if self.marked else f"{self.labels[n]}. {self.texts[n]}" for n in chosen)


class Question(NamedTuple):
    """column: of the question. answer: the column that names the right choice; None where `right` is marked."""

    column: str
    choices: Choices
    answer: str | None
    right: tuple[int, ...] | None


def match(row: Row) -> Question | None:
    """None where a row has no question, no choices or nothing that could name the right one."""
    column = next((n for n in QUESTIONS if isinstance(row.get(n), str) and row[n].strip()), None)
    choices = column and _choices(row, column)
    if not choices:
        return None
    if choices.right:
        return Question(column, choices, None, choices.right)
    named = [n for n in ANSWERS if n != column and n not in choices.columns and row.get(n) is not None]
    named.sort(key=lambda n: str(row[n]).strip().isdigit())  # a letter is sure, a number counts from 0 or from 1
    for name in named:
        if right := _right(row[name], choices, row.get(FIRST)):
            return Question(column, choices, name, right)
    return Question(column, choices, named[0], None) if named else None


def rewrite(row: Row, question: Question, report: ReportProblem) -> Row | None:
    column, choices, answer, right = question
    asked = f"{row[column]}\n{choices.lines(range(len(choices.labels)))}"
    value = None if answer is None else row[answer]
    words = isinstance(value, str) and answer in LEARNT and len(value.split()) > 3
    if right is None and not words:
        reason = f"None of the choices {choices.labels[0]} to {choices.labels[-1]} is named."
        return report("no_choice", answer, value, reason)
    used = [
        n for n in ANSWERS if n in row and n != column and right and _right(row[n], choices, row.get(FIRST)) == right
    ]
    rest = without(row, column, answer, FIRST, *choices.columns, *used)
    name = column if column in COLUMNS["prompt"] else "question"
    learnt = value if right is None else choices.lines(right)
    return rest | {name: asked, "output" if "instruction" in row else "completion": learnt}


def _choices(row: Row, question: str) -> Choices | None:
    for name in LISTS:
        if name in row and name != question and (choices := _listed(name, row[name])):
            return choices
    for names in choice_columns(tuple(row)):
        texts = [row[n] for n in names]
        if len(texts) > 1 and question not in names and all(isinstance(t, (str, int, float)) for t in texts[:2]):
            filled = [(n, str(t).strip()) for n, t in zip(names, texts) if t is not None and str(t).strip()]
            labels = tuple(COLUMN.fullmatch(n)[2].upper() for n, _ in filled)
            return Choices(names, labels, tuple(t for _, t in filled)) if len(filled) > 1 else None
    return None


@lru_cache(maxsize=1024)
def choice_columns(columns: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Columns that differ only in the letter or number at their end, from A, 0 or 1 on.

    Two columns named answer_1 and answer_2 are compared with each other, which another layout reads: they need a third.
    """
    stems: dict[str, dict[str, str]] = {}
    for name in columns:
        if end := COLUMN.fullmatch(name):
            stems.setdefault(end[1], {})[end[2]] = name
    groups = []
    for stem, names in stems.items():
        ends = sorted(names)
        series = [LETTERS, LETTERS.lower(), "0123456789", "123456789"]
        whole = any("".join(ends) == letters[: len(ends)] for letters in series)
        if whole and len(ends) > (2 if stem in ("", "answer") else 1):
            groups.append(tuple(names[end] for end in ends))
        elif whole and stem == "" and ends == ["A", "B"]:
            groups.append(("A", "B"))
    return tuple(groups)


def _listed(name: str, value: Any) -> Choices | None:
    """The choices in one column: a list of texts or objects, {"text": […], "label": […]}, {"A": …}, or text."""
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, dict):
        texts = next((value[k] for k in ("text", "choices", "texts") if isinstance(value.get(k), list)), None)
        labels = next((value[k] for k in ("label", "labels") if isinstance(value.get(k), list)), None)
        if texts is None:
            filled = {k: t for k, t in value.items() if isinstance(t, (str, int, float)) and t != ""}
            single = all(re.fullmatch(r"[A-Za-z]|\d", str(k)) for k in value)
            return _of(name, list(filled.values()), list(filled)) if single else None
        return _of(name, texts, labels)
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        labels = [next((i[k] for k in ("label", "key", "id", "letter") if k in i), None) for i in value]
        texts = [next((i[k] for k in ("text", "value", "content", "option", "answer") if k in i), None) for i in value]
        return _of(name, texts, None if None in labels else labels)
    return _of(name, value, None) if isinstance(value, list) else None


def _of(name: str, texts: list[Any], labels: list[Any] | None) -> Choices | None:
    if len(texts) < 2 or not all(isinstance(text, (str, int, float)) for text in texts):
        return None
    words = tuple(str(text).strip() for text in texts)
    if labels is not None and len(labels) != len(texts):
        return None
    if labels is not None and all(type(label) is int and label in (0, 1) for label in labels):
        right = tuple(n for n, label in enumerate(labels) if label)
        return Choices((name,), tuple(LETTERS[: len(words)]), words, right) if right and len(words) <= 26 else None
    if labels is not None:
        return Choices((name,), tuple(str(label) for label in labels), words)
    marks = [MARK.match(word) for word in words]
    own = "".join((mark[1] or mark[2]).upper() for mark in marks if mark)
    if len(own) == len(words) and own in (LETTERS[: len(own)], "123456789"[: len(own)]):
        return Choices((name,), tuple(own), words, marked=True)
    return Choices((name,), tuple(LETTERS[: len(words)]), words) if len(words) <= len(LETTERS) else None


def _from_text(text: str) -> Any:
    """Choices in a cell: JSON, a list as NumPy prints it, or A) … B) … in lines or between commas."""
    text = text.strip()
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return [a or b for a, b in QUOTED.findall(text)]
    return [part.strip() for part in MARKS.split(text) if part.strip()]


def _right(value: Any, choices: Choices, first: Any = None) -> tuple[int, ...] | None:
    """The choices that a value names; None where it names none. first: from which number on the choices are counted."""
    if isinstance(value, list):
        parts = [_right(part, choices, first) for part in value]
        return tuple(n for part in parts for n in part) if parts and all(parts) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    word = str(value).strip()
    texts, labels = [t.casefold() for t in choices.texts], [a.casefold() for a in choices.labels]
    bare = [text[MARK.match(text).end() :] for text in texts] if choices.marked else texts
    if isinstance(value, str) and not (first is not None and word.isdigit()) and bare.count(word.casefold()) == 1:
        return (bare.index(word.casefold()),)
    if word.isdigit() and first is None and word in labels:
        return (labels.index(word),)
    if word.isdigit():
        number = int(word) - int(first or 0)
        return (number,) if 0 <= number < len(texts) else None
    mark = MARK.match(word)
    label = (mark[1] or mark[2]).casefold() if mark else ""
    if label in labels:
        at = labels.index(label)
        rest = word[mark.end() :].casefold()
        return (at,) if not rest or rest in texts[at] else None
    letters = [letter.casefold() for letter in re.findall(r"\w", word)] if SEVERAL.fullmatch(word) else []
    several = letters and len(set(letters)) == len(letters) and all(letter in labels for letter in letters)
    return tuple(labels.index(letter) for letter in letters) if several else None


def counting(rows: list[Row]) -> tuple[int | None, str]:
    """(number of the first choice, None where no number names one; why that is not sure, or "")."""
    numbers, ends, texts = [], [], []
    for row in rows:
        found = match(row)
        value = row.get(found.answer) if found and found.answer else None
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip().isdigit():
            numbers.append(int(value))
            ends.append(len(found.choices.texts))
            texts.append(isinstance(value, str) and value.strip() in found.choices.texts)
            digits = all(label.isdigit() for label in found.choices.labels) and found.choices.labels[0] != "0"
    if not numbers or all(texts):
        return None, ""
    if 0 in numbers:
        return 0, ""
    if any(number == end for number, end in zip(numbers, ends, strict=True)) or digits:
        return 1, ""
    return 0, (
        "The right choices are named by numbers, and it is not sure whether these count from 0 or from 1: they were "
        f"read from 0. If they count from 1: --column {FIRST}=1"
    )


LAYOUTS = (
    Layout("questions with choices, of which the right one is learnt", match, rewrite, KEYS, order=35, texts=True),
)
