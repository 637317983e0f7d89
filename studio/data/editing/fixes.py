"""Automatic fixes of a row by kind of problem, where the meaning leaves no doubt. For other kinds, rows are deleted."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from studio.data.editing.cells import keys_of, map_texts, replace_at, turn_lists
from studio.data.formats.messages import role_of
from studio.data.text_checks import CONTROL, FENCE, INVISIBLE, MEDIA, SECRET
from studio.data.text_checks import HTML as MARKUP

GARBLED = re.compile(
    "[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2,}"
)
ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}")
CODE = re.compile(f"({FENCE.pattern})", re.DOTALL)


class FixOf(NamedTuple):
    """How a kind of problem is mended: every text of a row by itself, or its turns as a whole."""

    label: str
    text: Callable[[str], str] | None = None
    turns: Callable[[list[Any]], list[Any]] | None = None


def apply_fix(kind: str, row: Any) -> Any:
    """The row with the problem fixed as far as possible; the same object where nothing changes."""
    _, of_text, of_turns = FIXES[kind]
    if of_text is not None:
        return map_texts(row, of_text)
    for path, turns in turn_lists(row):
        new_turns = of_turns(turns)
        if new_turns != turns and new_turns:
            row = replace_at(row, path, new_turns)
    return row


def _as_utf8(match: re.Match[str]) -> str:
    """UTF-8 that was decoded as Windows-1252, decoded again; unchanged where it is no UTF-8."""
    signs = (
        char.encode("cp1252", "ignore") or char.encode("latin-1") for char in match[0]
    )  # cp1252 leaves some bytes free
    try:
        return b"".join(signs).decode("utf-8")
    except UnicodeError:
        return match[0]


def _as_letter(match: re.Match[str]) -> str:
    r"""What \u00e9 stands for; of a sign in two halves both."""
    text: str = json.loads(f'"{match[0]}"')
    return text if text.isprintable() else match[0]


def _strip_markup(text: str) -> str:
    """The text without tags, and with characters in place of entities; code between backticks stays."""

    def replacement(match: re.Match[str]) -> str:
        if match[0].startswith("&"):
            return match[0]
        return "\n" if re.match(r"<(?:br|/p|/div|/li|/tr|/h\d)", match[0], re.IGNORECASE) else ""

    parts = CODE.split(text)
    return "".join(part if n % 2 else html.unescape(MARKUP.sub(replacement, part)) for n, part in enumerate(parts))


def _drop_empty_turns(turns: list[Any]) -> list[Any]:
    """The turns without those that say nothing and call nothing."""
    _, content_key = keys_of(turns)

    def has_content(turn: dict[str, Any]) -> bool:
        content = turn.get(content_key)
        return content is not None and bool(str(content).strip())

    return [turn for turn in turns if turn.get("tool_calls") or turn.get("function_call") or has_content(turn)]


def _merge_turns(turns: list[Any]) -> list[Any]:
    """The turns with those of one speaker joined that follow one another and hold nothing but text."""
    role_key, content_key = keys_of(turns)
    new_turns: list[Any] = []
    for turn in turns:
        before = new_turns[-1] if new_turns else None
        mergeable = (
            before is not None
            and set(before) == set(turn) == {role_key, content_key}
            and isinstance(before[content_key], str)
            and isinstance(turn[content_key], str)
        )
        if mergeable and role_of(before[role_key]) == role_of(turn[role_key]) in ("user", "assistant"):
            new_turns[-1] = {**before, content_key: f"{before[content_key]}\n\n{turn[content_key]}"}
        else:
            new_turns.append(turn)
    return new_turns


def _cut_after_last_answer(turns: list[Any]) -> list[Any]:
    role_key, _ = keys_of(turns)
    answers = [n for n, turn in enumerate(turns) if role_of(turn.get(role_key)) == "assistant"]
    return turns[: answers[-1] + 1] if answers else turns


def _start_at_first_question(turns: list[Any]) -> list[Any]:
    role_key, _ = keys_of(turns)
    first = next((n for n, turn in enumerate(turns) if role_of(turn.get(role_key)) == "user"), 0)
    return [turn for n, turn in enumerate(turns) if n >= first or role_of(turn.get(role_key)) == "system"]


FIXES = {
    "crlf": FixOf("End lines with LF", lambda text: text.replace("\r\n", "\n").replace("\r", "\n")),
    "literal_break": FixOf("Make them line breaks", lambda text: text.replace("\\r\\n", "\n").replace("\\n", "\n")),
    "literal_escape": FixOf("Make them letters", lambda text: ESCAPE.sub(_as_letter, text)),
    "nul": FixOf("Remove the invisible characters", lambda text: INVISIBLE.sub("", text)),
    "bom": FixOf("Remove the marks", lambda text: text.replace("\ufeff", "")),
    "mojibake": FixOf("Restore the letters", lambda text: GARBLED.sub(_as_utf8, text)),
    "html": FixOf("Strip tags and entities", _strip_markup),
    "control_token": FixOf("Remove the tokens", lambda text: CONTROL.sub("", text)),
    "media": FixOf("Remove the marks", lambda text: MEDIA.sub("", text).strip()),
    "secret": FixOf("Replace by [removed]", lambda text: SECRET.sub("[removed]", text)),
    "empty_field": FixOf("Drop empty turns", turns=_drop_empty_turns),
    "role_order": FixOf("Join turns of one speaker", turns=_merge_turns),
    "no_end": FixOf("Cut behind the last answer", turns=_cut_after_last_answer),
    "assistant_first": FixOf("Begin with the first question", turns=_start_at_first_question),
}
