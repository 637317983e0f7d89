"""Conversations as texts with marks of who speaks: Glaive, HH-RLHF, MOSS."""

from __future__ import annotations

import json
import re
from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.layouts import Layout

SPEAKERS = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
SPEAKER = re.compile(r"(?:\A|\s)(USER|ASSISTANT|FUNCTION RESPONSE):\s")
CALL = re.compile(r"<functioncall>\s*(\{.*\})\s*\Z", re.DOTALL)
QUOTED = re.compile(r"""("arguments":\s*)'(.*)'(\s*\})\Z""", re.DOTALL)
TURN = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant|H|A): ?", re.DOTALL)
ROLES = {"H": "user", "A": "assistant"}
NUMBER = re.compile(r"turn_(\d+)")
MARKS = re.compile(r"^\s*<\|[\w ]+\|>:\s?|\s*<eo\w>\s*$")
PLUGINS = ("Commands", "Tool Responses")


# Glaive's function calling: {"system": "SYSTEM: … functions", "chat": "USER: … ASSISTANT: <functioncall> {…}"}.
def _match_glaive(row: Row) -> bool:
    chat = row.get("chat")
    return isinstance(chat, str) and chat.lstrip().startswith("USER:") and "ASSISTANT:" in chat


def _rewrite_glaive(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    pieces = SPEAKER.split(row["chat"])[1:]
    turns: list[dict[str, Any]] = []
    for speaker, words in zip(pieces[::2], pieces[1::2], strict=True):
        text = words.replace("<|endoftext|>", "").strip()
        turn: dict[str, Any] = {"role": SPEAKERS[speaker], "content": text}
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


# HH-RLHF: chosen and rejected are whole conversations as text, with Human: and Assistant: before the turns.
def _match_hh(row: Row) -> bool:
    return all(
        isinstance(row.get(n), str) and row[n].lstrip().startswith(("Human:", "H:")) for n in ("chosen", "rejected")
    )


def _rewrite_hh(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    chosen, rejected = _hh_turns(row["chosen"]), _hh_turns(row["rejected"])
    shared = next((n for n, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    shared = min(shared, len(chosen) - 1)  # where both answers are the same
    if chosen[shared:][1:] or rejected[shared:][1:] or chosen[shared]["role"] != "assistant" or not shared:
        reason = "The two conversations must be the same up to one last answer."
        return report("wrong_type", "rejected", row["rejected"].strip(), f"{reason} They part at turn {shared + 1}.")
    rest = without(row, "chosen", "rejected")
    return rest | {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _hh_turns(text: str) -> list[dict[str, str]]:
    pieces = TURN.split(text)[1:]
    return [
        {"role": ROLES[speaker[0]], "content": content.strip()}
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]


# MOSS: {"chat": {"turn_1": {"Human": "<|Human|>: …<eoh>", "MOSS": "<|MOSS|>: …<eom>"}, …}}.
def _match_moss(row: Row) -> bool:
    chat = row.get("chat")
    return (
        isinstance(chat, dict)
        and bool(chat)
        and all(isinstance(t, dict) and NUMBER.fullmatch(n) for n, t in chat.items())
    )


def _rewrite_moss(row: Row, matches: bool, report: ReportProblem) -> Row | None:
    turns: list[dict[str, Any]] = []
    for name, turn in sorted(row["chat"].items(), key=lambda item: int(NUMBER.fullmatch(item[0])[1])):
        plugin_key = next((k for k in PLUGINS if _said(turn.get(k)) not in ("", "None")), None)
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


LAYOUTS = (
    Layout(
        "USER: and ASSISTANT: in text, as in Glaive's function calling",
        _match_glaive,
        _rewrite_glaive,
        frozenset(("chat",)),
        texts=True,
        column="chat",
    ),
    Layout("Human: and Assistant: in text, as in HH-RLHF", _match_hh, _rewrite_hh, frozenset(("chosen",)), texts=True),
    Layout("numbered turns, as in MOSS", _match_moss, _rewrite_moss, frozenset(("chat",)), column="chat"),
)
