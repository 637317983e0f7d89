"""What formats that hold a list of turns have in common."""

from __future__ import annotations

from typing import Any

from studio import json_text
from studio.data.formats import Found, Row
from studio.data.formats.content import spoken
from studio.data.formats.fields import kind
from studio.data.turns import CONTENT_KEYS, ROLE_KEYS, ROLES, verdict

LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "chat_messages")
KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", "weight")
HARD = frozenset({"unknown_role", "no_assistant"})  # no order of turns could save such a row


def is_turn(turn: Any, known: bool = False) -> bool:
    """Does it say who speaks, and what? known: and is the role one of those that are known?"""
    if not isinstance(turn, dict):
        return False
    role = next((turn[k] for k in ROLE_KEYS if k in turn), None)
    said = any(k in turn for k in CONTENT_KEYS) or "tool_calls" in turn
    return said and role is not None and (not known or role_of(role) is not None)


def role_of(said: Any) -> str | None:
    """The role in our words: system, user, assistant or tool; None where it is none of the known spellings."""
    if isinstance(said, dict):  # an author, as in ChatGPT's export
        said = said.get("role")
    return ROLES.get(said) or ROLES.get(said.strip().lower()) if isinstance(said, str) else None


def list_column(row: Row) -> str | None:
    """The column that holds the list of turns."""
    return next((name for name in LISTS if isinstance(row.get(name), list)), None)


def gather(row: Row, found: Found, role_key: str, content_key: str) -> dict[str, Any] | None:
    """The row's turns as messages, checked. None when it cannot be trained on."""
    name = list_column(row)
    if name is None:
        present = next((n for n in LISTS if n in row), None)
        if present is None:
            found("missing_field", LISTS[0], list(row))
        else:
            found("wrong_type", present, row[present], f"The field must be a list of turns, but it is {kind(row[present])}.")
        return None
    messages = turns_of(row[name], found, name, role_key, content_key)
    if messages is None:
        return None
    system = row.get("system") or row.get("system_prompt")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    wrong = verdict(tuple(m["role"] for m in messages))
    if wrong:
        found(wrong[0], f"{name}[{wrong[1]}]", messages[wrong[1]]["content"], wrong[2])
        if wrong[0] in HARD:
            return None
    conversation: dict[str, Any] = {"messages": messages}
    tools = row.get("tools") or row.get("functions")
    if tools:
        conversation["tools"] = _tools(tools)
    return conversation


def turns_of(turns: list[Any], found: Found, name: str, role_key: str, content_key: str) -> list[dict[str, Any]] | None:
    """The turns as messages, each checked by itself."""
    if not turns:
        found("empty_field", name, turns)
        return None
    messages = []
    for n, turn in enumerate(turns):
        where, role, content = f"{name}[{n}]", role_key, content_key
        spoken_turns: list[Any] | None = [turn]
        if isinstance(turn, dict):
            if role not in turn:
                role = next((k for k in ROLE_KEYS if k in turn), role)
            if content not in turn:
                content = next((k for k in CONTENT_KEYS if k in turn), content)
            if isinstance(turn.get(content), list) and turn[content]:
                spoken_turns = spoken(turn, content, found, where)
        if spoken_turns is None:
            return None
        for one in spoken_turns:
            message = _turn(one, found, where, *((role, content) if one is turn or content in one else ("role", "content")))
            if message is None:
                return None
            messages.append(message)
    return messages


def _turn(turn: Any, found: Found, where: str, role_key: str, content_key: str) -> dict[str, Any] | None:
    if not isinstance(turn, dict):
        found("wrong_type", where, turn, f"A turn must be an object with {role_key} and {content_key}, but it is {kind(turn)}.")
        return None
    said = turn.get(role_key)
    role = role_of(said)
    if role is None:
        found("missing_field" if said is None else "unknown_role", f"{where}.{role_key}", said)
        return None
    content = turn.get(content_key)
    if type(content) is not str:
        content = None
    extra = {key: turn[key] for key in KEPT if turn.get(key) is not None} if len(turn) > 2 else {}
    if content is None:
        if content_key not in turn and "tool_calls" not in extra:
            found("missing_field", f"{where}.{content_key}", turn)
        elif turn.get(content_key) is not None:
            value = turn[content_key]
            found("wrong_type", f"{where}.{content_key}", value, f"The content must be text, but it is {kind(value)}.")
        elif "tool_calls" not in extra:
            found("empty_field", f"{where}.{content_key}", content)
        if "tool_calls" not in extra:
            return None
        content = ""
    if not content.strip() and role in ("user", "assistant") and "tool_calls" not in extra:
        found("empty_field", f"{where}.{content_key}", content)
        return None
    return {"role": role, "content": content, **extra}


def _tools(tools: Any) -> Any:
    if isinstance(tools, str):
        try:
            tools = json_text.read(tools, "tools")
        except ValueError:
            return tools
    return tools
