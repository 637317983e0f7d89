"""MOSS: {"chat": {"turn_1": {"Human": "<|Human|>: …<eoh>", "MOSS": "<|MOSS|>: …<eom>"}, …}}."""

from __future__ import annotations

import re
from typing import Any

from studio.data.formats import ReportProblem, Row, without

TITLE = "numbered turns, as in MOSS"
NAME = "chat"
KEYS = frozenset(("chat",))
NUMBER = re.compile(r"turn_(\d+)")
MARKS = re.compile(r"^\s*<\|[\w ]+\|>:\s?|\s*<eo\w>\s*$")
CALLS = ("Commands", "Tool Responses")


def match(row: Row) -> bool:
    chat = row.get("chat")
    return (
        isinstance(chat, dict)
        and bool(chat)
        and all(isinstance(t, dict) and NUMBER.fullmatch(n) for n, t in chat.items())
    )


def rewrite(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    for name, turn in sorted(row["chat"].items(), key=lambda item: int(NUMBER.fullmatch(item[0])[1])):
        plugin_key = next((k for k in CALLS if _said(turn.get(k)) not in ("", "None")), None)
        if plugin_key:
            reason = "The turn calls a plugin in MOSS' own notation, which no template here writes."
            return report("wrong_type", f"chat.{name}.{plugin_key}", turn[plugin_key], reason)
        for speaker, role in (("Human", "user"), ("MOSS", "assistant")):
            if not isinstance(turn.get(speaker), str):
                return report("missing_field", f"chat.{name}.{speaker}", turn)
            turns.append({"role": role, "content": _said(turn[speaker])})
    system = row.get("meta_instruction")
    if isinstance(system, str) and system.strip():
        turns.insert(0, {"role": "system", "content": system.strip()})
    return without(row, "chat", "meta_instruction") | {"messages": turns}


def _said(text: Any) -> str:
    """The words without MOSS' marks of who speaks and where it ends."""
    return MARKS.sub("", MARKS.sub("", text)) if isinstance(text, str) else ""
