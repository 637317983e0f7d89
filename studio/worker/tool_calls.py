"""Tool calls in an answer, in OpenAI's shape."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from studio.text.call_marks import SAID, starts
from studio.text.tool_calls import names_of
from studio.text.written_calls import called, read_calls

Tools = Sequence[dict[str, Any]]


def parse_calls(text: str, tools: Tools = (), opens: bool = True) -> tuple[str, list[dict[str, Any]]]:
    """(content, tool calls). With a call that is none of a function by name, the text is content.

    tools: those declared in the request; calls without a mark must be of these. opens: as in `starts`.
    """
    start = starts(text, opens)
    calls = read_calls(text[start:], tools)
    if not calls or not (SAID.match(text, start) or called(calls) <= set(names_of([*tools]))):
        return text, []
    return text[:start].rstrip(), [_openai_call(**call["function"]) for call in calls]


def _openai_call(name: str, arguments: Any) -> dict[str, Any]:
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": name, "arguments": written}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
