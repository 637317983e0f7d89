"""The text of what rows hold in parts: the passages of a context, a system prompt in blocks, reasoning in steps."""

from __future__ import annotations

from typing import Any

TEXT_KEYS = (
    *("text", "content", "value", "page_content", "passage", "contents", "body", "snippet", "summary", "thinking"),
    *("reasoning", "parts", "full_text"),
)


def plain_text(value: Any, separator: str = "\n\n") -> str | None:
    """The text of a value: a text, an object with one, or HotpotQA's [title, [sentence, …]]; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], list):
            return _titled(value[0], value[1])
        parts = [plain_text(part, separator) for part in value]
        return None if None in parts else separator.join(part for part in parts if part)
    return _text_of_object(value, separator) if isinstance(value, dict) else None


def _text_of_object(value: dict[str, Any], separator: str) -> str | None:
    titles, sentences = value.get("title"), value.get("sentences")
    if isinstance(titles, list) and isinstance(sentences, list) and len(titles) == len(sentences):
        return plain_text([[title, part] for title, part in zip(titles, sentences, strict=True)], separator)
    key = next((name for name in TEXT_KEYS if name in value), None)
    text = None if key is None else plain_text(value[key], separator)
    return f"{titles}\n{text}" if text and isinstance(titles, str) and titles else text


def _titled(title: str, sentences: list[Any]) -> str | None:
    if not all(isinstance(sentence, str) for sentence in sentences):
        return None
    return "\n".join([title, " ".join(sentence.strip() for sentence in sentences)])
