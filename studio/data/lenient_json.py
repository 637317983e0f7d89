"""JSON as people write it by hand: comments, commas too many or missing, line breaks inside a text. Mended, and told."""

from __future__ import annotations

import re

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|#[^\n]*', re.DOTALL)
EXTRA = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[}\]])', re.DOTALL)
MISSING = re.compile(r'("(?:[^"\\]|\\.)*")|([}\]])(\s*)(?=[{\[])', re.DOTALL)
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
RAW = re.compile(r"[\x00-\x1f]")


def repair(text: str) -> tuple[str, list[str]]:
    """(the text as JSON, what was mended in it). Line breaks outside texts stay, so that problems name the right line."""
    told: dict[str, None] = {}

    def token(found: re.Match[str]) -> str:
        said = found[0]
        if said[0] != '"':
            told["comments were left out"] = None
            return re.sub(r"[^\n]", " ", said)
        if RAW.search(said):
            told["line breaks inside texts were kept as such"] = None
            return RAW.sub(lambda sign: ESCAPES.get(sign[0], f"\\u{ord(sign[0]):04x}"), said)
        return said

    def extra(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        told["commas behind the last entry were left out"] = None
        return found[2]

    def missing(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        told["missing commas were put in"] = None
        return f"{found[2]},{found[3]}"

    text = EXTRA.sub(extra, TOKEN.sub(token, text))
    text = MISSING.sub(missing, text)
    return text, list(told)
