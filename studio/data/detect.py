"""The format of a file's rows, from their content, with the reason."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

from studio.data.converter import Converter
from studio.data.formats import Row, as_row, fitting, formats
from studio.data.formats.context import CONTEXT
from studio.data.formats.fields import kind
from studio.data.formats.flags import HELD_OUT
from studio.data.formats.messages import is_turn, role_of
from studio.data.layouts import layout_of, rewritten, two_answers
from studio.data.mapping import PARTS, format_of, options, value_at
from studio.data.problem import KINDS
from studio.data.rated import has_ratings
from studio.data.roles import MESSAGE_COLUMNS, ROLE_KEYS
from studio.errors import DataError

QUESTION_NAMES = re.compile(
    r"input|quest|prompt|query|instruct|ask|user|human|problem|message|review|faq|frage|anweis|pregunta|pergunta|"
    r"domanda|instru[cç]|вопрос|질문|问|問|指令|指示|提示|用户|用戶|输入|入力",
    re.IGNORECASE,
)
ANSWER_NAMES = re.compile(
    r"output|answer|respon|reply|target|complet|assistant|solution|summary|translation|antwort|ausgabe|r[ée]ponse|"
    r"respuesta|salida|resposta|risposta|ответ|답|答|回复|回覆|输出|出力|助手|応答",
    re.IGNORECASE,
)
PATH_ANSWERS = re.compile(rf"{ANSWER_NAMES.pattern}|annotation|result|choices|label", re.IGNORECASE)
PATH_LABELS = re.compile(
    r"(^|[._])(id|uuid|key|role|hash|url|lang|language|split|date|time|model|category|type|tag|status|user|user_id|"
    r"name|created_at|updated_at)$"
)
NUMBERS = re.compile(r"(?:\.\d+)+$")  # of entries, at the end of a path
PART_NAMES = {  # of columns nobody knows
    "answer": ANSWER_NAMES,
    "system": re.compile(r"system|系统|系統", re.IGNORECASE),
    "input": re.compile(r"eingabe|entrada|entrée|输入$|入力|입력|ввод", re.IGNORECASE),
    "prompt": QUESTION_NAMES,
}
BETTER_NAMES = re.compile(
    r"(?<![a-z])(?:chosen|prefer|better|best|good|win|positiv|accept|correct|gut)|好|优|優|正", re.IGNORECASE
)
WORSE_NAMES = re.compile(
    r"(?<![a-z])(?:reject|worse|worst|bad|los|negativ|dispref|non_?pref|incorrect|schlecht)|坏|壞|差|劣|负|錯|错",
    re.IGNORECASE,
)
CHINESE = {  # part -> names of columns in Chinese
    "instruction": "指令 问 问题 問題 提问 提問 用户 用戶 用户输入 用户问题 提示词",
    "input": "输入 輸入",
    "output": "输出 輸出 回复 回覆 答 答案 回答 助手 模型输出 模型回答 参考答案",
    "system": "系统 系統 系统提示 系统提示词",
    "messages": "对话 對話 消息",
}
NAMED_PARTS = PARTS | {name: part for part, names in CHINESE.items() for name in names.split()}
REJECTED = frozenset(("rejected", "non_preferred_output", "rejected_response", "rejected_messages"))
LABELS = frozenset(
    ("label", "labels", "class", "category", "sentiment", "intent", "emotion", "topic", "gold_label", "label_text",
     "stars", "rating", "score", "polarity", "is_duplicate", "toxic", "is_toxic", "spam", "target", "标签", "类别")
)  # fmt: skip
TELLTALES: tuple[tuple[frozenset[str], str], ...] = (  # columns that say what a file is, what to do
    (
        frozenset(("custom_id", "response")),
        "A batch's output holds answers alone: put each beside the question that has its custom_id in the "
        "request file, as messages.",
    ),
    (frozenset(("input_ids",)), "These are numbers of tokens already. Choose the texts that they were made from."),
    (
        frozenset(("segments",)),
        "These are parts of finished texts, some of them to be learnt. Write each row as messages; an answer that is "
        "not to be learnt is marked with weight: 0.",
    ),
    (
        frozenset(("header", "title", "time")),
        "This is a list of activities, not of conversations: the answers stand in it as HTML, if at all.",
    ),
    (frozenset(("cell_type", "source")), "This is a notebook. Save it as a script, and name that .txt, to learn it."),
    (frozenset(("architectures",)), "This is a model's config.json: choose its folder as the model, not as the data."),
    (
        frozenset(("id", "name", "is_archived")),
        "This is Slack's list of channels. The messages stand in the folders beside it, a file for each day.",
    ),
    (
        frozenset(("id", "name", "team_id", "profile")),
        "This is Slack's list of people. The messages stand in the folders beside it, a file for each day.",
    ),
    (
        frozenset(("tokens", "ner_tags")),
        "These are words with tags. Write each row as a question with the text and an answer with what is to be found.",
    ),
)
BLANK = f"{string.whitespace}\u00a0\u200b\u2060\ufeff"  # around the names of columns
SAVE_EACH = (
    "python -c \"import json, sys; [json.dump(rows, open(name + '.json', 'w')) for name, rows in "
    'json.load(sys.stdin).items()]"'
)
MAX_PATH_DEPTH = 6  # objects and lists around a text
SAMPLE_ROWS = 200  # rows
FEW_SHARE = 0.05  # share of the rows below which none of them counts
CONFIDENT_SHARE = 0.9  # share of the rows that must look like the format


@dataclass(frozen=True)
class Detection:
    """The format, and the reason in words. unsure: why the user should check the columns, or ""."""

    format: str
    reason: str
    unsure: str = ""


def detect(rows: list[Any], name: str = "the file", more: Row | None = None) -> Detection:
    """The format most of the rows fit. Raises DataError when none fits.

    Each row counts for the most specific format it fits (the order of formats()); a tie goes to the one more rows fit.
    more: what the layouts are to know beside the rows' own columns.
    """
    sampled = [row for row in map(as_row, rows[:SAMPLE_ROWS]) if isinstance(row, dict)]
    written = [rewritten(row | more if more else row, lambda *_: None) for row in sampled]
    fitting_rows = [fitting(row) for row in written if row is not None]
    counts, fits = Counter(names[0] for names in fitting_rows if names), Counter(chain.from_iterable(fitting_rows))
    if not counts and None in written:  # of a known layout, and faulty: each row's problem is reported
        best = "preference" if any("chosen" in row or not REJECTED.isdisjoint(row) for row in sampled) else "chatml"
        return Detection(best, f"The first {len(sampled)} rows look like {formats()[best].TITLE}.")
    if not counts or (counts.total() < FEW_SHARE * len(sampled) and None not in written):
        raise _unknown_layout(columns_of(sampled), rows, name)
    best = max(formats(), key=lambda n: (counts[n], fits[n]))
    fit = fits[best] + written.count(None)  # of a known layout, and faulty: told as problems
    title = formats()[best].TITLE
    layouts = Counter(layout.TITLE for layout in map(layout_of, sampled) if layout is not None)
    layout = f", written as {layouts.most_common(1)[0][0]}" if layouts else ""
    columns = _listed(columns_of(sampled))
    reason = f"{fit} of the first {len(sampled)} rows look like {title}{layout} (columns {columns})."
    if fit >= CONFIDENT_SHARE * len(sampled):
        return Detection(best, reason)
    unsure = f"Only {fit} of the first {len(sampled)} rows look like {title}."
    other_names = [n for n in counts if n != best and any(n in names and best not in names for names in fitting_rows)]
    if other_names:
        others = ", ".join(formats()[n].TITLE for n in other_names)
        unsure += (
            f" Others look like {others}: rows that do not fit are refused; a file for each layout keeps them all."
        )
    return Detection(best, reason, unsure)


def _unknown_layout(columns: list[str], rows: list[Any], name: str) -> DataError:
    if not columns:
        content = "lists without names" if rows and isinstance(rows[0], list) else "no objects with named columns"
        return DataError(
            f"The rows of {name} are {content}.",
            'Write each row as an object, such as {"instruction": "…", "output": "…"}.',
            name,
        )
    message = f"The rows of {name} have none of the known layouts: {_listed(columns)}."
    hint = next((hint for told, hint in TELLTALES if told <= set(columns)), "")
    if hint:
        return DataError(message, hint, name)
    sampled = [row for row in map(as_row, rows[:SAMPLE_ROWS]) if isinstance(row, dict)]
    if has_ratings(sampled):
        hint = (
            "These are rated answers. For stage dpo, pairs of a better and a worse one are made by: python -m studio "
            f"pairs {name} pairs.jsonl"
        )
        return DataError(message, hint, name)
    if len(rows) == 1 and not name.lower().endswith((".csv", ".tsv")):
        values = list(sampled[0].values())
        if sum(isinstance(value, list) for value in values) > 1:
            hint = "Where these hold lists of rows, save the one to train on in a file of its own."
            if "train" in columns and HELD_OUT.issuperset({*columns} - {"train"}):
                hint = (
                    f"Save each in a file of its own, and name them as data.train and data.eval: {SAVE_EACH} < {name}"
                )
            return DataError(message, hint, name)
        if len(columns) > 1 and all(isinstance(value, str) for value in values) and any(" " in c for c in columns):
            return DataError(
                message,
                'Where these are questions and their answers, write each as a row: {"prompt": "…", "completion": "…"}.',
                name,
            )
    if len(columns) == 1 and (sign := re.fullmatch(r"\w+([^\w\s.?!'\"-])\w+(?:\1\w+)*", columns[0])):
        hint = f"If {sign[1]} parts the cells, say so in a line above the first: sep={sign[1]}"
        return DataError(message, hint, name)
    if any(len(column) > 40 or column.endswith((".", "?", "!")) for column in columns):
        hint = "If the first line is a row already, write the names of the columns in a line above it: "
        hint += ",".join(["prompt", "completion", *("more" * (n > 2) for n in range(3, len(columns) + 1))])
        if (other := _layout_hint(columns, sampled, name)).startswith("Say which column holds what"):
            hint = f"{other} {hint}"
        return DataError(message, hint, name)
    return DataError(message, _layout_hint(columns, sampled, name), "data.mapping")


def _layout_hint(columns: list[str], rows: list[Row], name: str) -> str:
    """A hint on how to read rows of unknown layout: a mapping that works on them, or what they lack."""
    for column in columns:  # a list of turns whose roles have another name
        if (keys := _turn_keys(rows, column)) and _mapping_works(
            {"messages": column, "role": keys[0], "content": keys[1]}, rows
        ):
            return (
                "Say which column holds the turns: "
                f"{options({'messages': column, 'role': keys[0], 'content': keys[1]})}."
            )
    if hint := _conversation_hint(columns, rows):
        return hint
    texts = [column for column in _text_columns(rows) if not _is_label(column, rows)]
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
            f"Say which of {_listed(texts)} is the question and which the answer: --column prompt=NAME "
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
    outer = [name for name in _text_columns(rows) if not _is_label(name, rows)]
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


def text_paths(value: Any, path: str = "", depth: int = 0) -> list[str]:
    """The paths of the texts in a row, such as answers.text.0; of a list only the first entry's."""
    if isinstance(value, str):
        return [path] if value.strip() else []
    if depth > MAX_PATH_DEPTH:
        return []
    if isinstance(value, list):
        return text_paths(value[0], f"{path}.0", depth + 1) if value else []
    if isinstance(value, dict):
        return [
            p for key, inner in value.items() for p in text_paths(inner, f"{path}.{key}" if path else key, depth + 1)
        ]
    return []


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
                f"{column}[0] holds {_listed(list(first[0]))}: write every turn with role and content, or "
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


def _turn_keys(rows: list[Row], column: str) -> tuple[str, str] | None:
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


def _text_columns(rows: list[Row]) -> list[str]:
    """The columns that hold text in at least 9 of 10 rows."""
    counts = Counter(name for row in rows for name, value in row.items() if isinstance(value, str) and value.strip())
    return [name for name in columns_of(rows) if name != "(no name)" and counts[name] * 10 >= 9 * len(rows)]


def _is_label(column: str, rows: list[Row]) -> bool:
    """Whether a text column holds ids or categories: by its name, or because no text has two words."""
    if re.fullmatch(
        r"(.*_)?(id|uuid|key|hash|url|lang|language|split|date|time|created|timestamp|model|category|type|status|"
        r"tag)s?|.*_at",
        column.lower(),
    ):
        return True
    texts = [row[column].strip() for row in rows if isinstance(row.get(column), str)]
    if len(texts) < 2:
        return False
    return all(text.isascii() and " " not in text and (len(text) > 3 or text.isdigit()) for text in texts)


def classification_mapping(columns: list[str], unused: list[str], format: str) -> dict[str, str] | None:
    """{"prompt", "answer"}: a mapping that trains an unused label column as the answer to the text column."""
    label = next((name for name in unused if name.lower() in LABELS), None)
    text = next((name for name in formats()["text"].COLUMNS["text"] if name in columns), None)
    return {"prompt": text, "answer": label} if label and text and format == "text" else None


def match_names(columns: list[str], rows: list[Any]) -> dict[str, str] | None:
    """A mapping where the columns have names that are known but for case and blanks, or in Chinese; or None."""
    names = {column: column.strip(BLANK).lower() for column in reversed(columns)}
    parts = {part: c for c, name in names.items() if (part := NAMED_PARTS.get(name))}
    if "instruction" not in parts and "input" in parts:
        parts["instruction"] = parts.pop("input")
    if "messages" in parts and (keys := _turn_keys([row for row in rows if isinstance(row, dict)], parts["messages"])):
        parts |= dict(zip(("role", "content"), keys))
    enough = {"instruction", "output"} <= set(parts) or "messages" in parts or "text" in parts
    return parts if enough and any(part != column for part, column in parts.items()) else None


def columns_of(rows: list[Any]) -> list[str]:
    """All column names of these rows, in the order in which they first occur."""
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))


def _listed(columns: list[str]) -> str:
    shown = ", ".join(columns[:8])
    return shown + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
