"""Translations of what the page shows, by the English sentence: studio/ui/strings/LANGUAGE/*.json.

The page's script translates what it shows (static/words.js has the same `say`), so a switch needs no reload.
Python translates only what is made here and carries values: errors and causes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from studio import plural
from studio.data.dialects import known_columns
from studio.errors import StudioError

LANGUAGES = {"en": "English", "zh": "中文"}
FOLDER = Path(__file__).parent / "strings"
PLURAL = re.compile(r"(\{n\} (?!of )(?:[a-z]+ )??[a-z]+)s\b")
SLOT = re.compile(r"\{(\w*)\}")  # {rows}, or {0} in the patterns of messages that the core fills itself


@lru_cache(maxsize=len(LANGUAGES))
def table(lang: str) -> dict[str, str]:
    """English -> the language, of all its files together. Empty for English and for an unknown language."""
    words: dict[str, str] = {}
    if lang in LANGUAGES:
        for file in sorted((FOLDER / lang).glob("*.json")):
            words.update(json.loads(file.read_text(encoding="utf-8")))
    return words


@lru_cache(maxsize=1)
def singular() -> dict[str, str]:
    """English sentences about {n} things -> about one, where more than an s changes. Chinese has no plural."""
    found: dict[str, str] = json.loads((FOLDER / "singular.json").read_text(encoding="utf-8"))
    return found


def of_one(text: str) -> str:
    """An English sentence about {n} things, of one: its own where there is one, else without the plural's s."""
    return singular().get(text) or PLURAL.sub(r"\1", text, count=1)


def say(text: str, lang: str = "en", **values: object) -> str:
    """The text in a language, with {name} filled in; a text that has no translation stays English."""
    one = lang == "en" and str(values.get("n")) == "1"
    translation = of_one(text) if one else table(lang).get(text, text)
    return SLOT.sub(lambda slot: str(values.get(slot[1], slot[0])), translation) if values else translation


def translate(message: str, lang: str = "en") -> str:
    """A message of the core, its values filled in already, in a language: by the sentence whose {0} {1} … it fits.

    The names of the user's columns among its values stay as they are.
    """
    words = table(lang)
    if not message or not words:
        return plural.of_one(message) if lang == "en" else message
    if message in words:
        return words[message]
    for pattern, translation in _patterns(lang):
        match = pattern.fullmatch(message)
        if match:
            return SLOT.sub(
                lambda slot, match=match: _value(match[f"slot{slot[1]}"], lang) if slot[1].isdigit() else slot[0],
                translation,
            )
    return message


def _value(value: str, lang: str) -> str:
    return value if value in known_columns() else translate(value, lang)


@lru_cache(maxsize=len(LANGUAGES))
def _patterns(lang: str) -> list[tuple[re.Pattern[str], str]]:
    """The table's sentences with numbered slots, as patterns; those with the most words of their own first."""
    slotted = [key for key in table(lang) if re.search(r"\{\d+\}", key)]
    slotted.sort(key=lambda key: len(SLOT.sub("", key)), reverse=True)
    return [(re.compile(_pattern(key), re.DOTALL), table(lang)[key]) for key in slotted]


def _pattern(key: str) -> str:
    """A sentence's pattern: its slots stand in any order, {1} as the group slot1."""
    parts = re.split(r"\{(\d+)\}", key)
    return "".join(f"(?P<slot{part}>.*?)" if place % 2 else re.escape(part) for place, part in enumerate(parts))


def explain(error: StudioError, lang: str = "en") -> dict[str, str | None]:
    """An error for the page: {message, hint, where} in the reader's language."""
    return {"message": translate(error.message, lang), "hint": translate(error.hint, lang), "where": error.where}


def language(requested: str | None) -> str:
    """The language of a browser's wish ("zh-CN", "de"): one that there is, else English."""
    start = (requested or "").lower().split("-")[0].split("_")[0]
    return start if start in LANGUAGES else "en"


def missing(keys: Iterable[str], lang: str) -> list[str]:
    """Those that have no translation."""
    return [key for key in keys if key not in table(lang)]


def script() -> str:
    """The tables for the page's script."""
    words = {lang: table(lang) for lang in LANGUAGES}
    tables = f"window.studioWords = {json.dumps(words, ensure_ascii=False)};"
    one = json.dumps([singular(), plural.ONE, plural.VERBS])
    return f"{tables} window.studioOne = {one};".replace("</", "<\\/")
