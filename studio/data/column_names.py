"""What the names of columns that no format knows say: which asks, which answers, which is a label."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import Any

from studio.data.formats import Row, formats
from studio.data.mapping import PARTS

QUESTION_NAMES = re.compile(
    r"input|quest|prompt|query|instruct|(?<!t)ask|user|human|patient|customer|client|problem|message|review|faq|"
    r"frage|anweis|pregunta|pergunta|domanda|instru[cç]|вопрос|질문|问|問|指令|指示|提示|用户|用戶|输入|入力",
    re.IGNORECASE,
)
ANSWER_NAMES = re.compile(
    r"output|answer|respon|reply|target|complet|assistant|solution|summary|translation|"
    r"(?<![a-z])(?:doctor|therapist)(?![a-z])|patch|attempt|(?<![a-z])ans(?![a-z])|"
    r"antwort|ausgabe|r[ée]ponse|respuesta|salida|resposta|risposta|ответ|답|答|回复|回覆|输出|出力|助手|応答",
    re.IGNORECASE,
)
PATH_ANSWERS = re.compile(rf"{ANSWER_NAMES.pattern}|annotation|result|choices|label", re.IGNORECASE)
PATH_LABELS = re.compile(
    r"(^|[._])(id|uuid|key|role|hash|url|lang|language|split|date|time|model|category|type|tag|status|user|user_id|"
    r"name|author|created_at|updated_at)$|^\w*tests?\b"
)
NUMBERS = re.compile(r"(?:\.\d+)+$")  # of entries, at the end of a path
PART_NAMES = {  # of columns nobody knows
    "answer": ANSWER_NAMES,
    "reasoning": re.compile(r"reasoning|thinking|rationale|(?<![a-z])cot(?![a-z])|thought", re.IGNORECASE),
    "system": re.compile(r"system|系统|系統", re.IGNORECASE),
    "input": re.compile(
        r"eingabe|entrada|entrée|question[ _]?(?:text|content|body)|输入$|入力|입력|ввод", re.IGNORECASE
    ),
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
LABELS = frozenset(
    ("label", "labels", "class", "category", "sentiment", "intent", "emotion", "topic", "gold_label", "label_text",
     "stars", "rating", "score", "polarity", "is_duplicate", "toxic", "is_toxic", "spam", "target", "标签", "类别")
)  # fmt: skip
MAX_PATH_DEPTH = 6  # objects and lists around a text
SAFE = re.compile(r"[\w=./\[\]-]*\w")  # what a shell takes as one word, up to where a sentence may end behind it
OPTION = re.compile(r"--column ('[^']*'|[\w=./\[\]-]*\w)")
OPTIONS = re.compile(rf"[:：]?(?:\s*{OPTION.pattern})+")


def columns_of(rows: list[Any]) -> list[str]:
    """All column names of these rows, in the order in which they first occur."""
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))


def listed(columns: list[str]) -> str:
    shown = ", ".join(columns[:8])
    return shown + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")


def text_columns(rows: list[Row]) -> list[str]:
    """The columns that hold text in at least 9 of 10 rows."""
    counts = Counter(name for row in rows for name, value in row.items() if isinstance(value, str) and value.strip())
    return [name for name in columns_of(rows) if name != "(no name)" and counts[name] * 10 >= 9 * len(rows)]


def is_label(column: str, rows: list[Row]) -> bool:
    """Whether a text column holds ids or categories: by its name, or because no text has two words."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[ .-]+", "_", column)  # questionID, Prompt ID
    if re.fullmatch(
        r"(.*_)?(id|uuid|key|hash|url|link|sender|speaker|author|role|lang|language|split|date|time|created|timestamp|"
        r"model|category|type|status|"
        r"tag)s?|.*_at",
        words.lower(),
    ):
        return True
    texts = [row[column].strip() for row in rows if isinstance(row.get(column), str)]
    if len(texts) < 2 or column in formats()["prompt"].COLUMNS["answer"]:
        return False
    return all(text.isascii() and " " not in text and (len(text) > 3 or text.isdigit()) for text in texts)


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


def classification_mapping(columns: list[str], unused: list[str], format: str) -> dict[str, str] | None:
    """{"prompt", "answer"}: a mapping that trains an unused label column as the answer to the text column."""
    label = next((name for name in unused if name.lower() in LABELS), None)
    text = next((name for name in formats()["text"].COLUMNS["text"] if name in columns), None)
    return {"prompt": text, "answer": label} if label and text and format == "text" else None


def options(mapping: dict[str, str]) -> str:
    """A mapping as options of a command: --column prompt=frage --column answer=antwort"""
    pairs = (f"{part}={column}" for part, column in mapping.items())
    return " ".join(f"--column {pair if SAFE.fullmatch(pair) else shlex.quote(pair)}" for pair in pairs)


def mapping_in(hint: str) -> dict[str, str] | None:
    """The mapping whose options a hint names; None where it names none, or leaves one to be filled in."""
    pairs = [pair.strip("'").partition("=") for pair in OPTION.findall(hint)]
    mapping = {part: column for part, _, column in pairs}
    return mapping if mapping and "NAME" not in mapping.values() else None


def without_options(hint: str) -> str:
    """A hint without the options of a command that stand in it, for a page that has a button in their place."""
    return OPTIONS.sub("", hint)
