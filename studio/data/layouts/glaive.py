"""Glaive's function calling: {"system": "SYSTEM: … functions", "chat": "USER: … ASSISTANT: <functioncall> {…}"}."""

from __future__ import annotations

import json
import re
from typing import Any

from studio.data.formats import ReportProblem, Row, without

TITLE = "USER: and ASSISTANT: in text, as in Glaive's function calling"
TEXTS = True
NAME = "chat"
KEYS = frozenset(("chat",))
ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
TURN = re.compile(r"(?:\A|\s)(USER|ASSISTANT|FUNCTION RESPONSE):\s")
CALL = re.compile(r"<functioncall>\s*(\{.*\})\s*\Z", re.DOTALL)
QUOTED = re.compile(r"""("arguments":\s*)'(.*)'(\s*\})\Z""", re.DOTALL)


def match(row: Row) -> bool:
    chat = row.get("chat")
    return isinstance(chat, str) and chat.lstrip().startswith("USER:") and "ASSISTANT:" in chat


def rewrite(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    pieces = TURN.split(row["chat"])[1:]
    turns: list[dict[str, Any]] = []
    for speaker, words in zip(pieces[::2], pieces[1::2], strict=True):
        text = words.replace("<|endoftext|>", "").strip()
        turn: dict[str, Any] = {"role": ROLES[speaker], "content": text}
        if "<functioncall>" in text:
            call = _call(text)
            if call is None:
                return report("wrong_type", f"messages[{len(turns)}]", text, "The <functioncall> is no JSON of a call.")
            turn = {"role": "assistant", "content": text.partition("<functioncall>")[0].strip(), "tool_calls": [call]}
        turns.append(turn)
    system, tools = _system(row.get("system"))
    if system:
        turns.insert(0, {"role": "system", "content": system})
    rest = without(row, "chat", "system") | {"messages": turns}
    return rest | {"tools": tools} if tools else rest


def _call(text: str) -> dict[str, Any] | None:
    """The call in a turn. Its arguments stand between single quotation marks, which JSON does not know."""
    match = CALL.search(text)
    quoted = match and QUOTED.search(match[1])
    try:
        if quoted:
            arguments = json.loads(quoted[2].replace("\\'", "'"))
            return json.loads(match[1][: quoted.start()] + '"arguments": {}}') | {"arguments": arguments}
        return json.loads(match[1]) if match else None
    except ValueError:
        return None


def _system(text: Any) -> tuple[str, list[Any]]:
    """(the words of the system turn, the functions declared in it)."""
    words = text.strip().removeprefix("SYSTEM:").strip() if isinstance(text, str) else ""
    tools, decoder, start = [], json.JSONDecoder(), words.find("{")
    end = start
    while start >= 0:
        try:
            tool, end = decoder.raw_decode(words, start)
        except ValueError:
            return words, []
        tools.append(tool)
        start = words.find("{", end)
    if not tools:
        return words, []
    return words[: words.find("{")].rstrip(" -\n"), tools
