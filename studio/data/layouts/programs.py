"""Turns as programs save them: LM Studio's versions, LangChain's types, is_user, AI Studio's chunks."""

from __future__ import annotations

from typing import Any

from studio.data.formats import ReportProblem, Row, without
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS, USER_FLAGS

TITLE = "turns as a chat program saves them"
NAMES = (*MESSAGE_COLUMNS, "interactions", "chunkedPrompt")
KEYS = frozenset(NAMES)
ORDER = 45
CLASSES = {"HumanMessage": "human", "AIMessage": "ai", "SystemMessage": "system", "AIMessageChunk": "ai"}
TYPES = frozenset(("human", "ai", "system", "tool", "user", "assistant", "model", "thought", *CLASSES))


def match(row: Row) -> str | None:
    """The column that holds the turns."""
    for name in NAMES:
        turns = _turns(row[name]) if name in row else None
        if turns and all(isinstance(turn, dict) and _rewritten(turn) is not None for turn in turns):
            return name
    return None


def _turns(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and isinstance(value.get("chunks"), list):  # Google AI Studio's
        return [_chunk(chunk) for chunk in value["chunks"]]
    return value if isinstance(value, list) else None


def _chunk(chunk: Any) -> Any:
    """A chunk as a turn; its role under `type`, where no format looks for one."""
    if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str):
        return None
    return {"type": "thought" if chunk.get("isThought") else chunk.get("role"), "content": chunk["text"]}


def rewrite(row: Row, name: str, report: ReportProblem) -> Row | None:
    turns = [_rewritten(turn) for turn in _turns(row[name])]
    system = next((n for n in ("systemInstruction", "system_instruction") if row.get(n)), None)
    if system:
        turns.insert(0, {"role": "system", "content": row[system]["parts"] if "parts" in row[system] else row[system]})
    return without(row, name, system) | {"messages": turns}


def _rewritten(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The turn with role and content; None for a turn of another kind."""
    if isinstance(turn.get("versions"), list) and turn["versions"]:
        return _version(turn)
    flag = next((name for name in USER_FLAGS if isinstance(turn.get(name), bool)), None)
    if flag:
        return without(turn, flag, "name") | {"role": "user" if turn[flag] else "assistant"}
    if any(key in turn for key in ROLE_KEYS):
        return None
    kind, inner = turn.get("type"), next((turn[k] for k in ("data", "kwargs") if isinstance(turn.get(k), dict)), turn)
    if kind == "constructor" and isinstance(turn.get("id"), list):
        kind = CLASSES.get(str(turn["id"][-1]))
    if kind not in TYPES or not any(key in inner for key in CONTENT_KEYS):
        return None
    return without(inner, "type", "id") | {"role": CLASSES.get(kind, kind)}


def _version(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The version of a turn that LM Studio shows, the blocks of its steps as one content."""
    chosen = turn.get("currentlySelected", 0)
    versions = turn["versions"]
    if not isinstance(chosen, int) or not 0 <= chosen < len(versions) or not isinstance(versions[chosen], dict):
        return None
    version = versions[chosen]
    parts: list[Any] = []
    for step in version.get("steps") or [version]:
        content = step.get("content") if isinstance(step, dict) else None
        style = step.get("style") if isinstance(step, dict) else None
        thinking = isinstance(style, dict) and style.get("type") == "thinking"
        for part in content if isinstance(content, list) else ():
            parts.append(part | {"type": "thinking"} if thinking and isinstance(part, dict) else part)
    return {"role": version.get("role"), "content": parts}
