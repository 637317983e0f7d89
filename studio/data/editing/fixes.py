"""What mends a kind of problem in a row, where it can be mended without knowing what was meant. Every other kind:
delete the rows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from studio.data.editing.cells import keys_of, map_texts, replace_at, turn_lists
from studio.data.formats.messages import role_of
from studio.data.text_checks import CONTROL, FENCE, INVISIBLE, MEDIA, SECRET
from studio.data.text_checks import HTML as MARKUP

GARBLED = re.compile(
    "[\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2,}"
)
CODE = re.compile(f"({FENCE.pattern})", re.DOTALL)


def apply_fix(kind: str, row: Any) -> Any:
    """The row without the fault, as far as it can be mended; the very same object where nothing changes."""
    if kind in TEXT_FIXES:
        return map_texts(row, TEXT_FIXES[kind])
    for path, turns in turn_lists(row):
        made = TURN_FIXES[kind](turns)
        if made != turns and made:
            row = replace_at(row, path, made)
    return row


def _ungarbled(text: str) -> str:
    """UTF-8 that was read as Windows-1252, as UTF-8 again; what does not fit stays."""
    return GARBLED.sub(_as_utf8, text)


def _as_utf8(found: re.Match[str]) -> str:
    try:
        return b"".join(_byte(sign) for sign in found[0]).decode("utf-8")
    except UnicodeError:
        return found[0]


def _byte(sign: str) -> bytes:
    try:
        return sign.encode("cp1252")
    except UnicodeEncodeError:
        return sign.encode("latin-1")  # the few bytes that Windows-1252 leaves free


def _without_markup(text: str) -> str:
    """Tags out, entities as their signs; code between backticks stays."""
    parts = CODE.split(text)
    return "".join(
        part if n % 2 else html.unescape(MARKUP.sub(lambda f: f[0] if f[0][0] == "&" else _space(f[0]), part))
        for n, part in enumerate(parts)
    )


def _space(tag: str) -> str:
    return "\n" if re.match(r"<(?:br|/p|/div|/li|/tr|/h\d)", tag, re.IGNORECASE) else ""


def _without_empty(turns: list[Any]) -> list[Any]:
    """Turns that say nothing and call nothing go."""
    _, said = keys_of(turns)
    return [
        turn
        for turn in turns
        if turn.get("tool_calls")
        or turn.get("function_call")
        or turn.get(said) not in (None, "")
        and str(turn.get(said)).strip()
    ]


def _joined(turns: list[Any]) -> list[Any]:
    """Turns of one speaker that follow one another become one, where they hold words and nothing beside."""
    who, said = keys_of(turns)
    made: list[Any] = []
    for turn in turns:
        before = made[-1] if made else None
        plain = (
            before is not None
            and set(before) == set(turn) == {who, said}
            and isinstance(before[said], str)
            and isinstance(turn[said], str)
        )
        if plain and role_of(before[who]) == role_of(turn[who]) in ("user", "assistant"):
            made[-1] = {**before, said: f"{before[said]}\n\n{turn[said]}"}
        else:
            made.append(turn)
    return made


def _to_last_answer(turns: list[Any]) -> list[Any]:
    who, _ = keys_of(turns)
    answers = [n for n, turn in enumerate(turns) if role_of(turn.get(who)) == "assistant"]
    return turns[: answers[-1] + 1] if answers else turns


def _from_first_question(turns: list[Any]) -> list[Any]:
    who, _ = keys_of(turns)
    first = next((n for n, turn in enumerate(turns) if role_of(turn.get(who)) == "user"), None)
    return (
        turns
        if first is None
        else [turn for n, turn in enumerate(turns) if n >= first or role_of(turn.get(who)) == "system"]
    )


TEXT_FIXES: dict[str, Callable[[str], str]] = {
    "crlf": lambda text: text.replace("\r\n", "\n").replace("\r", "\n"),
    "nul": lambda text: INVISIBLE.sub("", text),
    "bom": lambda text: text.replace("\ufeff", ""),
    "mojibake": _ungarbled,
    "html": _without_markup,
    "control_token": lambda text: CONTROL.sub("", text),
    "media": lambda text: MEDIA.sub("", text).strip(),
    "secret": lambda text: SECRET.sub("[removed]", text),
}
TURN_FIXES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "empty_field": _without_empty,
    "role_order": _joined,
    "no_end": _to_last_answer,
    "assistant_first": _from_first_question,
}
FIX_LABELS = {
    "crlf": "End lines with LF",
    "nul": "Remove the invisible characters",
    "bom": "Remove the marks",
    "mojibake": "Restore the letters",
    "html": "Strip tags and entities",
    "control_token": "Remove the tokens",
    "media": "Remove the marks",
    "secret": "Replace by [removed]",
    "empty_field": "Drop empty turns",
    "role_order": "Join turns of one speaker",
    "no_end": "Cut behind the last answer",
    "assistant_first": "Begin with the first question",
}
