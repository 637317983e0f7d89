"""What formats that hold a list of turns have in common."""

from __future__ import annotations

import json
from typing import Any

from studio.data.formats import Found, Row
from studio.data.formats.fields import kind
from studio.data.turns import ROLES, verdict

LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", "weight")
HARD = frozenset({"unknown_role", "no_assistant"})  # no order of turns could save such a row


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
        message = _turn(turn, found, f"{name}[{n}]", role_key, content_key)
        if message is None:
            return None
        messages.append(message)
    return messages


def _turn(turn: Any, found: Found, where: str, role_key: str, content_key: str) -> dict[str, Any] | None:
    if not isinstance(turn, dict):
        found("wrong_type", where, turn, f"A turn must be an object with {role_key} and {content_key}, but it is {kind(turn)}.")
        return None
    said = turn.get(role_key)
    role = ROLES.get(said) or ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        found("missing_field" if said is None else "unknown_role", f"{where}.{role_key}", said)
        return None
    content = turn.get(content_key)
    if type(content) is not str:
        content = _parts(content)
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


def _parts(content: Any) -> str | None:
    """OpenAI's content as a list of parts, when all of them are text."""
    if isinstance(content, list) and content and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    return None


def _tools(tools: Any) -> Any:
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            return tools
    return tools
