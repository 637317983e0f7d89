"""JSON as people and programs write it: comments, wrong commas, line breaks in texts, and the digits of numbers."""

from __future__ import annotations

import re

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|#[^\n]*', re.DOTALL)
EXTRA = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[}\]])', re.DOTALL)
MISSING = re.compile(r'("(?:[^"\\]|\\.)*")|([}\]])(\s*)(?=[{\[])', re.DOTALL)
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
RAW = re.compile(r"[\x00-\x1f]")
LOSES_DIGITS = re.compile(rb"\d\.\d*0(?![\d.])|\d[eE][+-]?\d")  # in a line that may hold such a number


def repair(text: str) -> tuple[str, list[str]]:
    """(the text as JSON, what was repaired). Line breaks outside strings stay, so line numbers remain right."""
    mended: dict[str, None] = {}

    def token(match: re.Match[str]) -> str:
        token_text = match[0]
        if token_text[0] != '"':
            mended["comments were left out"] = None
            return re.sub(r"[^\n]", " ", token_text)
        if RAW.search(token_text):
            mended["line breaks inside texts were kept as such"] = None
            return RAW.sub(lambda sign: ESCAPES.get(sign[0], f"\\u{ord(sign[0]):04x}"), token_text)
        return token_text

    def extra(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        mended["commas behind the last entry were left out"] = None
        return match[2]

    def missing(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        mended["missing commas were put in"] = None
        return f"{match[2]},{match[3]}"

    text = EXTRA.sub(extra, TOKEN.sub(token, text))
    text = MISSING.sub(missing, text)
    return text, list(mended)


class WrittenFloat(float):
    """A number whose text is not what Python writes."""

    written: str

    def __str__(self) -> str:
        return self.written


def written_float(text: str) -> float:
    """The number of a JSON text; as text it is again what stood there."""
    number = float(text)
    if repr(number) == text:
        return number
    kept = WrittenFloat(number)
    kept.written = text
    return kept
