"""The order of turns: which sequences of roles can be trained on, and every spelling of a role."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

ROLE_KEYS = ("role", "from", "speaker", "author", "sender", "角色")
MESSAGE_COLUMNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "chat_messages")
# true: the user speaks
USER_FLAGS = ("is_user", "isUser", "isCreatedByUser", "is_human", "isHuman", "from_user", "inbound")
CONTENT_KEYS = ("content", "value", "text", "message", "parts", "utterance", "mes", "contentParts", "内容")
SPELLINGS = {
    "system": "system developer 系统",
    "user": "user human prompter customer instruction question asker student client "
    "questioner person 用户 用戶 使用者 人类 问 提问者 客户",
    "assistant": "助手 助理 机器人 模型 答 客服 assistant gpt model bot chatgpt ai chatbot bard bing "
    "claude function_call tool_call tool_calls answer moss llm agent tutor "
    "completion output thought thoughts thinking think reasoning analysis",
    "tool": "工具 tool function observation tool_response ipython function_response",
}
ROLES = {spelling: role for role, spellings in SPELLINGS.items() for spelling in spellings.split()}


@lru_cache(maxsize=4096)
def role_order_problem(roles: Sequence[str]) -> tuple[str, int, str] | None:
    """What is wrong with this tuple of (canonical) roles: (kind, index of the turn, more words), or None."""
    talk = [(n, role) for n, role in enumerate(roles) if role != "system"]
    for n, role in enumerate(roles):
        if role not in ("system", "user", "assistant", "tool"):
            return "unknown_role", n, ""
    if not any(role == "assistant" for _, role in talk):
        return "no_assistant", len(roles) - 1, ""
    if talk[0][1] == "assistant":
        return "assistant_first", talk[0][0], ""
    if talk[0][1] == "tool":
        return "role_order", talk[0][0], "A tool's result stands before any question."
    before = "system"
    for n, role in talk:
        if role == before and role in ("user", "assistant"):
            return "role_order", n, f"Two turns of the {role} follow one another (turns {n} and {n + 1})."
        if role == "tool" and before not in ("assistant", "tool"):
            return "role_order", n, "A tool's result does not follow a call of the assistant."
        before = role
    for n, role in enumerate(roles):
        if role == "system" and n and roles[n - 1] != "system":
            return "role_order", n, "A system turn stands in the middle of the conversation."
    if talk[-1][1] != "assistant":
        return "no_end", talk[-1][0], ""
    return None


def display_text(message: dict[str, Any]) -> str:
    """A turn's words, and its calls of tools as JSON, for the eye."""
    calls = [
        json.dumps(call.get("function", call) if isinstance(call, dict) else call, ensure_ascii=False)
        for call in message.get("tool_calls") or ()
    ]
    return "\n".join([message["content"]] * bool(message["content"]) + calls)
