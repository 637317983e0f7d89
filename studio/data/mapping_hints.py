"""Hints that name the columns of rows by hand: each was tried on the rows."""

from __future__ import annotations

import re
from typing import Any

from studio.data.column_names import (
    ANSWER_NAMES,
    BETTER_NAMES,
    LABELS,
    NUMBERS,
    PART_NAMES,
    PATH_ANSWERS,
    PATH_LABELS,
    QUESTION_NAMES,
    WORSE_NAMES,
    columns_of,
    is_label,
    listed,
    mapping_in,
    options,
    text_columns,
    text_paths,
)
from studio.data.formats import Row, as_row, formats
from studio.data.formats.fields import CONTEXT, kind
from studio.data.layouts import two_answers
from studio.data.mapping import value_at
from studio.data.turn_hints import conversation_hint, prompts_hint, speakers_hint, turns_hint, works
from studio.text.marks import turns_in

NO_TEXT = (
    'No column holds a question or an answer as text. Write each row as {"instruction": "…", "output": "…"} or '
    '{"messages": [{"role", "content"}, …]}; then no mapping is needed.'
)


CHOSEN_ALONE = "To learn the chosen answers alone: --format chosen, or data.format: chosen."
ABOVE = " If the first line is a row already, write the names of the columns in a line above it."


def layout_hint(columns: list[str], rows: list[Row], name: str) -> str:
    """A hint on how to read rows of unknown layout: a mapping that works on them, or what they lack."""
    if hint := turns_hint(columns, rows) or conversation_hint(columns, rows):
        return hint
    texts = [column for column in text_columns(rows) if not is_label(column, rows)]
    mapping = _guess(texts)
    above = ABOVE if name.lower().endswith((".csv", ".tsv", ".txt")) else ""
    hints = (
        lambda: _comparison_hint(texts, rows),
        lambda: "" if "answer" in mapping else _class_hint(columns, texts, rows) or _path_hint(rows),
        lambda: _named_hint(mapping, rows),
        lambda: "" if "answer" in mapping else _two_texts_hint(texts, rows, above),
        lambda: _transcript_hint(texts, rows),
        lambda: "" if "answer" in mapping else _unanswered_hint(mapping.get("prompt"), columns, rows),
        lambda: _texts_hint(texts, rows),
        lambda: _text_hint(texts, rows),
    )
    return next(filter(None, (hint() for hint in hints)), NO_TEXT)


def _guess(texts: list[str]) -> dict[str, str]:
    """part -> column, as far as the names of the columns tell."""
    mapping: dict[str, str] = {}
    for part, names in PART_NAMES.items():
        if column := next((c for c in texts if names.search(c) and c not in mapping.values()), None):
            mapping[part] = column
    if "prompt" not in mapping and "input" in mapping:
        mapping["prompt"] = mapping.pop("input")
    if len(texts) == 2 and [*mapping] == ["answer"]:
        mapping["prompt"] = next(column for column in texts if column != mapping["answer"])
    return {part: mapping[part] for part in ("prompt", "input", "answer", "system", "reasoning") if part in mapping}


def _named_hint(mapping: dict[str, str], rows: list[Row]) -> str:
    """The columns that the names tell, where they work."""
    if "prompt" not in mapping or "answer" not in mapping:
        return ""
    answer = mapping["answer"]
    first = mapping | {"answer": f"{answer}.0"}
    listed_texts = (str(row.get(answer)).lstrip()[:1] == "[" and value_at(row, first["answer"]) for row in rows)
    if all(isinstance(text, str) for text in listed_texts) and works(first, rows):
        return f"To learn the first of the texts in {answer}: {options(first)}."
    if not works(mapping, rows):
        return ""
    named = ", ".join(f"{part}: {column}" for part, column in mapping.items())
    return f"Say which column holds what: {options(mapping)}; in an order: mapping: {{{named}}}."


def _transcript_hint(texts: list[str], rows: list[Row]) -> str:
    """That a text alone holds marks of who speaks."""
    if len(texts) != 1 or not all(turns_in(str(row.get(texts[0]))) for row in rows[:20]):
        return ""
    return (
        f"Marks in {texts[0]} say who speaks. To learn the answers alone: --format transcript "
        f"{options({'text': texts[0]})}."
    )


def _unanswered_hint(question: str | None, columns: list[str], rows: list[Row]) -> str:
    if question is None:
        return ""
    reason = "there is none"
    if column := next((c for c in columns if ANSWER_NAMES.search(c)), None):
        reason = f"{column} holds {kind(next((row[column] for row in rows if row.get(column) is not None), None))}"
    return (
        f"No column holds the answer to {question} as text: {reason}. Write one answer a row as text, in a "
        f"column such as output.{prompts_hint(rows)}"
    )


def _texts_hint(texts: list[str], rows: list[Row]) -> str:
    """That one of several texts may be the question and another the answer."""
    if len(texts) < 2 or not works({"prompt": texts[0], "answer": texts[-1]}, rows):
        return ""
    longest = max(texts, key=lambda name: sum(len(str(row.get(name))) for row in rows[:20]))
    return (
        f"Say which of {listed(texts)} is the question and which the answer: --column prompt=NAME "
        f"--column answer=NAME. Or learn {longest} as plain text: {options({'text': longest})}."
    )


def _text_hint(texts: list[str], rows: list[Row]) -> str:
    """What can be learnt of the only text."""
    if len(texts) != 1:
        return ""
    lists = [path for path in text_paths(rows[0]) if re.fullmatch(r"[^.]+\.0", path)]
    mapping = {"prompt": texts[0], "answer": lists[0]} if len(lists) == 1 else {}
    if mapping and not ANSWER_NAMES.search(texts[0]) and works(mapping, rows):
        return f"Say where they stand: {options(mapping)}. The 0 is the first entry of a list."
    if len(rows) < 2 or not works({"text": texts[0]}, rows):
        return ""
    return (
        f"Only {texts[0]} holds text: as plain text it is read with mapping: {{text: {texts[0]}}}; else "
        "add a column with the answer."
    )


def _two_texts_hint(texts: list[str], rows: list[Row], more: str = "") -> str:
    """That of two texts one may be the question and one the answer."""
    first, second = texts if len(texts) == 2 else ("", "")
    if second == "question":
        first, second = second, first
    mapping = {"prompt": first, "answer": second}
    if not first or not works(mapping, rows):
        return ""
    return (
        f"Say which of {first} and {second} is the question and which the answer: {options(mapping)} (or the other "
        f"way round).{more}"
    )


def _comparison_hint(texts: list[str], rows: list[Row]) -> str:
    """How to learn from two answers, one of them the better one; "" where no two columns look like that."""
    worse = next((column for column in texts if WORSE_NAMES.search(column)), None)
    better = next((column for column in texts if column != worse and BETTER_NAMES.search(column)), None)
    pair = (better, worse) if better and worse else two_answers.answer_columns(tuple(texts))
    if not pair:
        return ""
    others = [column for column in texts if column not in pair]
    asked = next(filter(QUESTION_NAMES.search, others), next(iter(others), None))
    mapping = {"prompt": asked, "chosen": pair[0], "rejected": pair[1]}
    if asked is None or not works(mapping, rows):
        return ""
    hint = f"To learn that {pair[0]} is a better answer than {pair[1]}: {options(mapping)}."
    return (
        hint if better and worse else f"{hint} Where it is not so in every row, name the better one in a column winner."
    )


def _class_hint(columns: list[str], texts: list[str], rows: list[Row]) -> str:
    """How to learn the class, or the mark, of one or two texts as an answer; "" where no column holds one."""
    label = next((name for name in columns if name.lower() in LABELS and name not in texts), None)
    parts = dict(zip(("prompt", "input"), texts)) if len(texts) <= 2 else {}
    if not label or not parts or not works(mapping := {**parts, "answer": label}, rows):
        return ""
    hint = f"To learn {label} as the answer to {' and '.join(texts)}: {options(mapping)}."
    if any(isinstance(row.get(label), (int, float)) for row in rows):
        hint += " Numbers are learnt as numbers: write the names of the classes in their place where words are meant."
    return hint


def _path_hint(rows: list[Row]) -> str:
    """How to name a question and an answer that stand inside objects and lists; "" where there are none."""
    paths = [path for path in text_paths(rows[0]) if "." in path and not PATH_LABELS.search(NUMBERS.sub("", path))]
    outer = [name for name in text_columns(rows) if not is_label(name, rows)]
    outer.sort(key=lambda name: -sum(len(str(row.get(name))) for row in rows[:20]))  # what is asked has most words
    named = [name for name in outer if name in formats()["prompt"].COLUMNS["prompt"]]
    answers = sorted(filter(PATH_ANSWERS.search, paths), key=lambda p: not PATH_ANSWERS.search(p.partition(".")[0]))
    for questions in (named, paths, outer):
        asked = next((p for p in questions if QUESTION_NAMES.search(p) and not ANSWER_NAMES.search(p)), None)
        asked = asked or next((p for p in questions if not PATH_ANSWERS.search(p)), None)
        answer = next((p for p in answers if p != asked), None)
        if asked and answer and works({"prompt": asked, "answer": answer}, rows):
            hint = f"Say where they stand: {options({'prompt': asked, 'answer': answer})}."
            return f"{hint} The 0 is the first entry of a list." if ".0" in asked + answer else hint
    return "" if outer else _two_texts_hint(paths, rows)


def suggest_mapping(rows: list[Any], kind: str, field: str, format: str) -> str:
    """A hint with a mapping that makes unusable rows usable, tried on them; "" where there is none."""
    rows = [row for row in map(as_row, rows) if isinstance(row, dict)]
    if kind in ("unknown_role", "no_assistant") and (hint := speakers_hint(rows, kind)):
        return hint
    if kind == "wrong_type" and format in ("prompt", "alpaca") and (hint := _first_answer_hint(rows, field)):
        return hint
    answer = next((name for name in formats()["prompt"].COLUMNS["answer"] if any(name in row for row in rows)), None)
    if kind == "wrong_type" and format == "preference" and (field or "").startswith("rejected"):
        return CHOSEN_ALONE
    if kind == "empty_field" and format == "preference":  # prompt, chosen or rejected, which are where they belong
        return CHOSEN_ALONE if field == "rejected" else ""
    if kind in ("missing_field", "empty_field") and format in ("text", "preference"):
        hint = layout_hint(columns_of(rows), rows, "")
        return hint if mapping_in(hint) else ""
    if kind != "empty_field" or format not in ("prompt", "alpaca") or not answer or field == answer:
        return ""
    asked = next((name for name in formats()["prompt"].COLUMNS["prompt"] if any(name in row for row in rows)), None)
    if field == "solution" and asked and works({"prompt": asked, "answer": answer}, rows):  # the answer beside it
        return f"Say where they stand: {options({'prompt': asked, 'answer': answer})}."
    if works({"text": answer}, rows):
        return f"Fill it; or, to learn {answer} as plain text: {options({'text': answer})}."
    return ""


def _first_answer_hint(rows: list[Row], field: str) -> str:
    """How to learn the first of several answers; "" where the field is no list of texts."""
    values = [row.get(field) for row in rows]
    asked = next((name for name in formats()["prompt"].COLUMNS["prompt"] if all(name in row for row in rows)), None)
    if not asked or not all(isinstance(value, list) and value and isinstance(value[0], str) for value in values):
        return ""
    more = next((name for name in ("input", *CONTEXT) if name != asked and isinstance(rows[0].get(name), str)), None)
    mapping = {"prompt": asked} | ({"input": more} if more else {}) | {"answer": f"{field}.0"}
    return f"Write one answer a row; or, to learn the first: {options(mapping)}." if works(mapping, rows) else ""
