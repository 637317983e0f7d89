"""Sessions of Claude Code: a row a turn, or a part of one, in an object beside its id."""

from __future__ import annotations

from typing import Any

from studio.data.formats import as_row

SESSION = "sessionId"  # Claude Code's


def unwrapped(row: Any) -> Any:
    """A row as turn; of a session of Claude Code, whose turn stands in an object beside its id."""
    row = as_row(row)
    turn = row.get("message") if isinstance(row, dict) and SESSION in row else None
    if not isinstance(turn, dict) or "role" not in turn or row.get("isSidechain") is True or row.get("isMeta") is True:
        return row
    if str(turn.get("content")).startswith(("<command-", "<local-command-")):
        return row
    return {SESSION: row[SESSION], "role": turn["role"], "content": turn.get("content")}


def joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns, those parts of one answer that stand in rows of their own put together."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        before = joined[-1] if joined else {}
        lists = isinstance(before.get("content"), list) and isinstance(message["content"], list)
        if lists and before["role"] == message["role"]:
            joined[-1] = before | {"content": [*before["content"], *message["content"]]}
        else:
            joined.append(message)
    return joined
