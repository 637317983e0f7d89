"""Short previews of a change to a row: parts of a text as [kind, text], kind being same, old or new."""

from __future__ import annotations

import json
import os
from itertools import islice
from typing import Any

from studio.data.editing.cells import cells
from studio.data.editing.operations import TextMatch

VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0xFEFF: "⟨BOM⟩"}
CONTEXT_CHARACTERS, MAX_MATCHES = 60, 4  # characters around a match, matches shown of a text


def match_excerpt(text: str, matches: list[TextMatch]) -> list[list[str]]:
    """A text around its matches."""
    parts: list[list[str]] = []
    at = max(0, matches[0].start - CONTEXT_CHARACTERS)
    if at:
        parts.append(["same", "…"])
    for match in matches[:MAX_MATCHES]:
        between = text[at : match.start]
        if len(between) > 2 * CONTEXT_CHARACTERS:
            between = f"{between[:CONTEXT_CHARACTERS]} … {between[-CONTEXT_CHARACTERS:]}"
        parts += [["same", between], ["old", text[match.start : match.stop][:500]], ["new", match.text[:500]]]
        at = match.stop
    ellipsis = "…" if at + CONTEXT_CHARACTERS < len(text) else ""
    parts.append(["same", text[at : at + CONTEXT_CHARACTERS] + ellipsis])
    return [part for part in parts if part[1]]


def deleted_excerpt(value: Any) -> dict[str, Any]:
    """A row that would be deleted, in short."""
    text = " · ".join(cell.text for cell in islice(cells(value), 4)) or json.dumps(
        value, ensure_ascii=False, default=str
    )
    return {"parts": [["old", text[:300] + ("…" if len(text) > 300 else "")]], "label": ""}


def difference(before: Any, after: Any) -> dict[str, Any]:
    """The first text that differs, around the place where it does."""
    old, new = ({cell.path: cell for cell in cells(row)} for row in (before, after))
    for path, cell in old.items():
        other = new.get(path)
        if cell.text != (other.text if other else ""):
            return {"label": cell.label, "parts": _compared(cell.text, other.text if other else "")}
    return {
        "label": "",
        "parts": _compared(
            json.dumps(before, ensure_ascii=False, default=str), json.dumps(after, ensure_ascii=False, default=str)
        ),
    }


def _compared(old: str, new: str) -> list[list[str]]:
    """The texts with what they begin and end with alike as same."""
    a = len(os.path.commonprefix((old, new)))
    b = len(os.path.commonprefix((old[a:][::-1], new[a:][::-1])))
    parts = [
        ["same", old[max(0, a - CONTEXT_CHARACTERS) : a]],
        ["old", visible(old[a : len(old) - b][:300])],
        ["new", visible(new[a : len(new) - b][:300])],
        ["same", old[len(old) - b :][:CONTEXT_CHARACTERS]],
    ]
    return [part for part in parts if part[1]]


def visible(text: str) -> str:
    """The text with signs in place of invisible characters."""
    return text.translate(VISIBLE)
