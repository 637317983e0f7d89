"""Tool calls in an answer, in the formats that models are trained on.

<tool_call>{"name": …, "arguments": {…}}</tool_call> (Hermes, Qwen, and the templates here), the same tag around Qwen3
Coder's <function=…> or GLM's <arg_key>; [TOOL_CALLS] and a JSON list or name[ARGS]{…} (Mistral); an answer that is one
JSON object with a name and parameters (Llama 3).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from studio.text import tool_calls

TAG, LIST, PYTHON = "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"
MARKS = (TAG, LIST, PYTHON)
SPECIAL = (*MARKS, "</tool_call>", "[ARGS]", "[CALL_ID]", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
NAMED = re.compile(r"([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(\{.*\})\s*", re.DOTALL)
Tools = Sequence[dict[str, Any]]


def calls_start(text: str, opens: bool = True) -> int:
    """The index where tool calls start or the text's end may start one, else the text's length.

    opens: the text is the beginning of an answer, which may be a call without a mark.
    """
    if opens and text.lstrip()[:1] == "{":
        return 0
    starts = [start for mark in MARKS if (start := text.find(mark)) >= 0]
    if starts:
        return min(starts)
    prefixes = [mark[:length] for mark in MARKS for length in range(1, len(mark))]
    return len(text) - max((len(prefix) for prefix in prefixes if text.endswith(prefix)), default=0)


def parse_calls(text: str, tools: Tools = (), opens: bool = True) -> tuple[str, list[dict[str, Any]]]:
    """(content, tool calls in OpenAI's shape). With a call that is none of a function by name, the text is content.

    tools: those declared in the request; they tell the types of arguments that are written without.
    """
    start = calls_start(text, opens)
    try:
        calls = [_openai_call(call) for call in _calls(text[start:], tools)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text, []
    return (text[:start].rstrip(), calls) if calls else (text, [])


def _calls(source: str, tools: Tools) -> Iterator[dict[str, Any]]:
    if source.startswith(TAG):
        for content in TAGGED.findall(source):
            yield json.loads(content) if content.startswith("{") else _spelled_out(content, tools)
    elif source.startswith(LIST):
        for content in filter(None, map(str.strip, source.split(LIST))):
            yield from json.loads(content) if content.startswith("[") else [_named(content)]
    elif source:
        for content in source.split(PYTHON):
            yield from _bare(content, tools)


def _named(content: str) -> dict[str, Any]:
    match = NAMED.fullmatch(content)
    if match is None:
        raise ValueError("no name and arguments")
    return {"name": match[1], "arguments": json.loads(match[2])}


def _spelled_out(content: str, tools: Tools) -> dict[str, Any]:
    """A call whose arguments are written one by one, a text as it is and anything else as JSON."""
    function = FUNCTION.match(content)
    if function is None and "<arg_key>" not in content:
        raise ValueError("no function")
    name, pairs = (
        (function[1].strip(), PARAMETER.findall(function[2]))
        if function
        else (content.partition("<arg_key>")[0].strip(), PAIR.findall(content))
    )
    return {"name": name, "arguments": {key: _typed(value, key, name, tools) for key, value in pairs}}


def _typed(value: str, key: str, name: str, tools: Tools) -> Any:
    functions = [tool.get("function", tool) for tool in tools]
    schema = next((function.get("parameters") or {} for function in functions if function.get("name") == name), {})
    if ((schema.get("properties") or {}).get(key) or {}).get("type") == "string":
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _bare(source: str, tools: Tools) -> Iterator[dict[str, Any]]:
    """JSON objects and nothing else, between which a semicolon may stand, each a call of a declared function."""
    names, decoder, position = tool_calls.names_of(list(tools)), json.JSONDecoder(), 0
    while remainder := source[position:].lstrip(" \n;"):
        position = len(source) - len(remainder)
        call, position = decoder.raw_decode(source, position)
        if call["name"] not in names or not isinstance(call.get("parameters", call.get("arguments")), dict):
            raise ValueError("no call")
        yield call


def _openai_call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(call["name"], str):
        raise TypeError("a call needs a name")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": call["name"], "arguments": text}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
