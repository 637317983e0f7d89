"""Tool calls in an answer, in the two formats that models are trained on.

<tool_call>{"name": …, "arguments": {…}}</tool_call> (Hermes, Qwen, and the templates here), or [TOOL_CALLS] and a JSON
list (Mistral).
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

OPEN, LIST = "<tool_call>", "[TOOL_CALLS]"
CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


def calls_start(text: str) -> int:
    """The index where tool calls start or the text's end may start one, else the text's length."""
    starts = [start for mark in (OPEN, LIST) if (start := text.find(mark)) >= 0]
    if starts:
        return min(starts)
    prefixes = [mark[:length] for mark in (OPEN, LIST) for length in range(1, len(mark))]
    return len(text) - max((len(prefix) for prefix in prefixes if text.endswith(prefix)), default=0)


def parse_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """(content, tool calls in OpenAI's shape). With a call that is no JSON object with a name, the text is content."""
    start = calls_start(text)
    source = text[start:]
    try:
        if source.startswith(LIST):
            calls = json.loads(source.removeprefix(LIST))
        else:
            calls = [json.loads(call) for call in CALL.findall(source)]
        tool_calls = [_openai_call(call) for call in calls]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text, []
    return (text[:start].rstrip(), tool_calls) if tool_calls else (text, [])


def _openai_call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(call["name"], str):
        raise TypeError("a call needs a name")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": call["name"], "arguments": text}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
