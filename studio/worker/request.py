"""What a request to the model server asks for: OpenAI's chat completion, with the few settings that others have added to it."""

from __future__ import annotations

from typing import Any

from studio.data.turns import ROLES

RESERVED = {"messages", "add_generation_prompt"}  # of the template's variables, those that are ours to set


def wanted(body: dict[str, Any]) -> tuple[str, list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """(model, messages, sampling, variables of the chat template). Raises ValueError for what cannot be meant."""
    messages = [{**message, "role": ROLES.get(message.get("role")), "content": _plain(message.get("content"))} for message in body.get("messages") or []]
    if not messages or not all(message["role"] for message in messages):
        raise ValueError("messages should be a list of objects with role (system, user, assistant or tool) and content")
    stop = body.get("stop") or []
    sampling: dict[str, Any] = {"stop": tuple([stop] if isinstance(stop, str) else stop)}
    for key, kind, low, high in (("temperature", float, 0, 5), ("top_p", float, 0.001, 1), ("top_k", int, 0, 100_000),
                                 ("repetition_penalty", float, 0.5, 3), ("seed", int, 0, 2**63 - 1)):
        if body.get(key) is not None:
            sampling[key] = _number(key, body[key], kind, low, high)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        sampling["max_tokens"] = _number("max_tokens", limit, int, 1, 1_000_000)
    if body.get("logprobs"):
        sampling["logprobs"] = _number("top_logprobs", body.get("top_logprobs") or 0, int, 0, 20)
    if body.get("n") not in (None, 1):
        raise ValueError("n should be 1: ask several times instead")
    return str(body.get("model") or ""), messages, sampling, _variables(body)


def _variables(body: dict[str, Any]) -> dict[str, Any]:
    """What the chat template is told beside the messages: tools, and chat_template_kwargs as vLLM has them. Raises ValueError."""
    tools, more = body.get("tools"), body.get("chat_template_kwargs") or {}
    if not isinstance(more, dict) or RESERVED & more.keys() or not (tools is None or isinstance(tools, list) and all(isinstance(one, dict) for one in tools)):
        raise ValueError("tools should be a list of objects, chat_template_kwargs an object")
    return {**more, "tools": tools} if tools else more


def _plain(content: Any) -> str:
    """Text, also when it comes as OpenAI's list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if part.get("type") == "text")
    return "" if content is None else str(content)


def _number(key: str, value: Any, kind: type, low: float, high: float) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{key} is {value!r}, but should be from {low} to {high}")
    return kind(value)
