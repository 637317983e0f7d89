"""Calls of tools in an answer, as models that were trained to call write them: <tool_call>{"name": …, "arguments": {…}}</tool_call>
(Hermes, Qwen, and the templates here), or [TOOL_CALLS] and a JSON list (Mistral).
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

OPEN, LIST = "<tool_call>", "[TOOL_CALLS]"
CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


def begins(text: str) -> int:
    """Where calls begin in a text, or where what stands at its end may be such a beginning; its length where there is none."""
    found = [at for mark in (OPEN, LIST) if (at := text.find(mark)) >= 0]
    if found:
        return min(found)
    return len(text) - max(
        (n for mark in (OPEN, LIST) for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0
    )


def calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """(content, calls in OpenAI's shape). A call that is no JSON object with a name leaves the text as it was written."""
    at = begins(text)
    told = text[at:]
    try:
        said = (
            json.loads(told.removeprefix(LIST))
            if told.startswith(LIST)
            else [json.loads(one) for one in CALL.findall(told)]
        )
        found = [_call(one) for one in said]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text, []
    return (text[:at].rstrip(), found) if found else (text, [])


def _call(said: dict[str, Any]) -> dict[str, Any]:
    arguments = said.get("arguments", said.get("parameters", {}))
    if not isinstance(said["name"], str):
        raise TypeError("a call needs a name")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": said["name"], "arguments": text},
    }
