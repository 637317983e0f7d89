"""Hints that name the columns of rows by hand: each was tried on the rows."""

from __future__ import annotations

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
    is_label,
    listed,
    text_columns,
    text_paths,
)
from studio.data.column_options import options
from studio.data.converter import Converter
from studio.data.formats import Row, as_row, formats
from studio.data.formats.context import CONTEXT
from studio.data.formats.fields import kind
from studio.data.formats.messages import is_turn, role_of
from studio.data.layouts import two_answers
from studio.data.mapping import format_of, value_at
from studio.data.problem import KINDS
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS


def layout_hint(columns: list[str], rows: list[Row], name: str) -> str:
    """A hint on how to read rows of unknown layout: a mapping that works on them, or what they lack."""
    for column in columns:  # a list of turns whose roles have another name
        if (keys := turn_keys(rows, column)) and _mapping_works(
            {"messages": column, "role": keys[0], "content": keys[1]}, rows
        ):
            return (
                "Say which column holds the turns: "
                f"{options({'messages': column, 'role': keys[0], 'content': keys[1]})}."
            )
    if hint := _conversation_hint(columns, rows):
        return hint
    texts = [column for column in text_columns(rows) if not is_label(column, rows)]
    if hint := _comparison_hint(texts, rows):
        return hint
    mapping: dict[str, str] = {}
    for part, names in PART_NAMES.items():
        if column := next((c for c in texts if names.search(c) and c not in mapping.values()), None):
            mapping[part] = column
    if "prompt" not in mapping and "input" in mapping:
        mapping["prompt"] = mapping.pop("input")
    if len(texts) == 2 and [*mapping] == ["answer"]:
        mapping["prompt"] = next(column for column in texts if column != mapping["answer"])
    question, answer = mapping.get("prompt"), mapping.get("answer")
    if question and answer and question != answer and all(_is_list_of_texts(row.get(answer)) for row in rows):
        first = {**mapping, "answer": f"{answer}.0"}
        if _mapping_works(first, rows):
            return f"To learn the first of the texts in {answer}: {options(first)}."
    if not answer and (hint := _class_hint(columns, texts, rows) or _path_hint(rows)):
        return hint
    if question and answer and question != answer and _mapping_works(mapping, rows):
        mapping = {part: mapping[part] for part in ("prompt", "input", "answer", "system") if part in mapping}
        named = ", ".join(f"{part}: {c}" for part, c in mapping.items())
        return f"Say which column holds what: {options(mapping)}; in an order: mapping: {{{named}}}."
    if len(texts) == 2 and not answer and _mapping_works({"prompt": texts[0], "answer": texts[1]}, rows):
        return _two_texts_hint(*texts) + _on_first_line(name)
    if question and not answer:
        reason = "there is none"
        if column := next((c for c in columns if ANSWER_NAMES.search(c)), None):
            reason = f"{column} holds {kind(next((row[column] for row in rows if row.get(column) is not None), None))}"
        return (
            f"No column holds the answer to {question} as text: {reason}. Write one answer a row as text, in a "
            "column such as output."
        )
    if len(texts) > 1 and _mapping_works({"prompt": texts[0], "answer": texts[-1]}, rows):
        return (
            f"Say which of {listed(texts)} is the question and which the answer: --column prompt=NAME "
            "--column answer=NAME."
        )
    if len(texts) == 1 and len(rows) > 1 and _mapping_works({"text": texts[0]}, rows):
        return (
            f"Only {texts[0]} holds text: as plain text it is read with mapping: {{text: {texts[0]}}}; else "
            "add a column with the answer."
        )
    return (
        'No column holds a question or an answer as text. Write each row as {"instruction": "…", "output": "…"} or '
        '{"messages": [{"role", "content"}, …]}; then no mapping is needed.'
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
    if asked is None or not _mapping_works(mapping, rows):
        return ""
    hint = f"To learn that {pair[0]} is a better answer than {pair[1]}: {options(mapping)}."
    return (
        hint if better and worse else f"{hint} Where it is not so in every row, name the better one in a column winner."
    )


def _two_texts_hint(first: str, second: str) -> str:
    return (
        f"Say which of {first} and {second} is the question and which the answer: "
        f"{options({'prompt': first, 'answer': second})} (or the other way round)."
    )


def _on_first_line(name: str) -> str:
    if not name.lower().endswith((".csv", ".tsv", ".txt")):
        return ""
    return " If the first line is a row already, write the names of the columns in a line above it."


def _is_list_of_texts(value: Any) -> bool:
    """Whether a text is a list of texts as JSON."""
    if not isinstance(value, str) or value.lstrip()[:1] != "[":
        return False
    texts = value_at({"": value}, ".0")
    return isinstance(texts, str)


def _class_hint(columns: list[str], texts: list[str], rows: list[Row]) -> str:
    """How to learn the class, or the mark, of one or two texts as an answer; "" where no column holds one."""
    label = next((name for name in columns if name.lower() in LABELS and name not in texts), None)
    parts = (
        {"prompt": texts[0]} if len(texts) == 1 else {"prompt": texts[0], "input": texts[1]} if len(texts) == 2 else {}
    )
    if not label or not parts or not _mapping_works(mapping := {**parts, "answer": label}, rows):
        return ""
    hint = f"To learn {label} as the answer to {' and '.join(texts)}: "
    hint += options(mapping) + "."
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
        if asked and answer and _mapping_works({"prompt": asked, "answer": answer}, rows):
            hint = f"Say where they stand: {options({'prompt': asked, 'answer': answer})}."
            return f"{hint} The 0 is the first entry of a list." if ".0" in asked + answer else hint
    if len(paths) == 2 and not outer and _mapping_works({"prompt": paths[0], "answer": paths[1]}, rows):
        return _two_texts_hint(*paths)
    return ""


def _conversation_hint(columns: list[str], rows: list[Row]) -> str:
    """What a list that could be a conversation lacks; "" where there is none."""
    for column in columns:
        first = next((row[column] for row in rows if isinstance(row.get(column), list) and row[column]), None)
        if first and column in MESSAGE_COLUMNS and len(first) == 1 and isinstance(first[0], str):
            return f"{column} holds one text a row: add its answer behind it."
        if first is None or not isinstance(first[0], dict):
            continue
        if all(is_turn(turn, known=True) for turn in first):
            return (
                f"{column} holds turns, and none of them is the assistant's: add the answers as turns with the "
                "role assistant."
            )
        if column in MESSAGE_COLUMNS:
            return (
                f"{column}[0] holds {listed(list(first[0]))}: write every turn with role and content, or "
                "every pair with user and assistant."
            )
    return ""


def suggest_mapping(rows: list[Any], kind: str, field: str, format: str) -> str:
    """A hint with a mapping that makes unusable rows usable, tried on them; "" where there is none."""
    rows = [row for row in map(as_row, rows) if isinstance(row, dict)]
    if kind in ("unknown_role", "no_assistant"):
        lists = [value for row in rows for value in row.values() if isinstance(value, list)]
        turns = [turn for value in lists for turn in value if isinstance(turn, dict)]
        speakers = [turn[key] for turn in turns for key in ROLE_KEYS if key in turn]
        roles = [s.get("name") if isinstance(s, dict) else s for s in speakers]
        roles = [str(role) for role in roles if isinstance(role, (str, int))]
        names = list(dict.fromkeys(roles))
        foreign = {None, "system"} if kind == "no_assistant" else {None}
        unknown_roles = [name for name in names if role_of(name) in foreign]
        known_roles = {role_of(name) for name in names if name not in unknown_roles}
        missing_roles = [part for part in ("user", "assistant") if part not in known_roles]
        for parts in (missing_roles, missing_roles[::-1]):
            mapping = dict(zip(parts, unknown_roles))
            if mapping and len(unknown_roles) <= len(parts) and _mapping_works(mapping, rows):
                return f"Rename it; or say who is who: {options(mapping)}."
    if kind == "wrong_type" and format in ("prompt", "alpaca") and (hint := _first_answer_hint(rows, field)):
        return hint
    answer = next((name for name in formats()["prompt"].COLUMNS["answer"] if any(name in row for row in rows)), None)
    if kind != "empty_field" or format not in ("prompt", "alpaca") or not answer or field == answer:
        return ""
    if _mapping_works({"text": answer}, rows):
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
    return (
        f"Write one answer a row; or, to learn the first: {options(mapping)}." if _mapping_works(mapping, rows) else ""
    )


def turn_keys(rows: list[Row], column: str) -> tuple[str, str] | None:
    """(the key that says who speaks, the key that says what), of a column that holds lists of objects."""
    turns = [turn for row in rows[:20] if isinstance(row.get(column), list) for turn in row[column]]
    if len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        return None
    names = [name for name in turns[0] if all(isinstance(turn.get(name), str) for turn in turns)]
    role_key = next((name for name in names if all(role_of(turn[name]) for turn in turns)), None)
    others = [name for name in names if name != role_key]
    content_key = next((k for k in others if any(" " in turn[k] or len(turn[k]) > 20 for turn in turns)), None)
    return (role_key, content_key) if role_key and content_key else None


def _mapping_works(mapping: dict[str, str], rows: list[Row]) -> bool:
    """Whether at least 9 of 10 of the first rows are usable with the mapping."""
    convert = Converter(formats()[format_of(mapping) or "alpaca"], mapping)
    refused: list[str] = []

    def report(kind: str, *_: Any) -> None:
        if KINDS[kind].severity == "refused":
            refused.append(kind)

    usable = 0
    for row in rows[:50]:
        refused.clear()
        usable += convert(row, report) is not None and not refused
    return usable * 10 >= 9 * len(rows[:50]) and usable > 0
