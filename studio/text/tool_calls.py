"""Tool calls and declarations: every spelling of them as OpenAI's, and whether a rendered turn holds a call whole."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from studio import json_text, python_text

Message = dict[str, Any]
# columns of declared tools
DECLARED = ("tools", "functions", "tool_definitions", "available_tools", "function_description")
NAMES, ARGUMENTS = ("name", "function", "tool", "tool_name"), ("arguments", "parameters", "args", "input")


def calls_of(value: Any) -> list[Message] | None:
    """Calls from an object, a list of objects, or their JSON (also one object a line); None where it is no call.

    Each comes out as {"type": "function", "function": {"name", "arguments"}}, with its id where it has one.
    """
    if isinstance(value, str):
        return _from_text(value.strip())
    if isinstance(value, list):
        calls = [_call(item) for item in value]
        return calls if calls and all(calls) else None
    call = _call(value)
    return [call] if call else None


def _from_text(text: str) -> list[Message] | None:
    if text[:1] not in ("{", "["):
        return None
    try:
        return calls_of(json_text.read(text))
    except ValueError:
        pass
    try:
        if "\n" in text and (calls := calls_of([json_text.read(line) for line in text.split("\n") if line.strip()])):
            return calls
    except ValueError:
        pass
    try:
        return calls_of(python_text.literal(text))  # as Python prints it
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _call(value: Any) -> Message | None:
    """One call as OpenAI writes it; arguments written as JSON text stay text."""
    if not isinstance(value, dict):
        return None
    inner = value.get("function") if isinstance(value.get("function"), dict) else value
    name = next((inner[key] for key in NAMES if isinstance(inner.get(key), str)), None)
    arguments_key = next((key for key in ARGUMENTS if key in inner), None)
    if (
        not name or (arguments_key is None and inner is value) or "description" in inner
    ):  # described: a declaration, no call
        return None
    arguments = {} if arguments_key is None or inner[arguments_key] is None else inner[arguments_key]
    if isinstance(arguments, str):
        arguments = _printed(arguments) if arguments.strip() else {}
    if not isinstance(arguments, (dict, str)):
        return None
    call: Message = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": value["id"], **call} if isinstance(value.get("id"), str) else call


def _printed(text: str) -> Any:
    """The object that a text shows as Python prints it, or the text inside JSON of a text; any other as it is."""
    try:
        if text.lstrip().startswith("{'"):
            value = python_text.literal(text.strip())
            return value if isinstance(value, dict) else text
        if text.lstrip().startswith('"{'):
            return str(json_text.read(text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    return text


def has_arguments(call: Message) -> bool:
    """Whether a call's arguments are an object, or its JSON."""
    return isinstance(_convert_arguments(call["function"]["arguments"], as_text=False), dict)


def tools_of(value: Any) -> list[Any] | None:
    """Declared tools as OpenAI's list, from a list, an object or their JSON; None where there are none."""
    if isinstance(value, str):
        try:
            value = json_text.read(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        named = (
            value and not {"name", "function", "type"} & set(value) and all(isinstance(v, dict) for v in value.values())
        )
        value = [{"name": name} | tool for name, tool in value.items()] if named else [value]
    if not isinstance(value, list) or not value or not all(isinstance(tool, dict) for tool in value):
        return None
    tools = [_tool(tool) for tool in value]
    return tools if names_of(tools) or any("type" in tool for tool in tools) else None


def _tool(tool: Message) -> Message:
    """A declared tool as OpenAI's chats write it, also from the Responses' way (flat) and Anthropic's input_schema."""
    if not isinstance(tool.get("name"), str) or "function" in tool:
        return tool
    function = {key: value for key, value in tool.items() if (key, value) != ("type", "function")}
    if "input_schema" in function and "parameters" not in function:
        function = {"parameters" if key == "input_schema" else key: value for key, value in function.items()}
    return {"type": "function", "function": function}


def names_of(tools: list[Any]) -> list[str]:
    """The names of declared tools."""
    inner = (tool.get("function", tool) if isinstance(tool, dict) else {} for tool in tools)
    return [tool["name"] for tool in inner if isinstance(tool, dict) and isinstance(tool.get("name"), str)]


def called_functions(messages: list[Message]) -> list[Any]:
    """What the turns call, without the calls' ids: two conversations of the same words may differ in this alone."""
    return [
        call.get("function", call) if isinstance(call, dict) else call
        for m in messages
        for call in m.get("tool_calls") or ()
    ]


def with_arguments(messages: list[Message], as_text: bool) -> list[Message]:
    """The messages with the arguments of calls as JSON text, or as objects where the text is one."""

    def convert(call: Any) -> Any:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            return call
        converted = function | {"arguments": _convert_arguments(function.get("arguments"), as_text)}
        return call | {"function": converted} if "function" in call else converted

    return [
        m | {"tool_calls": list(map(convert, m["tool_calls"]))} if isinstance(m.get("tool_calls"), list) else m
        for m in messages
    ]


def _convert_arguments(arguments: Any, as_text: bool) -> Any:
    if as_text:
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json_text.read(arguments or "{}")
    except ValueError:
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def missing(message: Message, text: str) -> str:
    """A function's name, or a name with an argument, that `text`, the message's rendered turn, lacks; else "".

    The words of the message itself do not count: they may well name the function and its arguments without calling it.
    """
    for own_text in (message.get("content"), message.get("reasoning_content")):
        for part in (
            (own_text or "").replace("<think>", "</think>").split("</think>") if isinstance(own_text, str) else ()
        ):
            if part.strip():
                text = text.replace(part.strip(), "", 1)
    needed: Counter[tuple[str, ...]] = Counter()
    owners: dict[tuple[str, ...], str] = {}
    for call in message.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            return "a call without a name"
        arguments = function.get("arguments")
        plain = _convert_arguments(arguments, as_text=False)
        if (
            isinstance(arguments, str)
            and isinstance(plain, dict)
            and any(json.dumps(arguments, ensure_ascii=ascii) in text for ascii in (False, True))
        ):
            return f"{name} (its arguments are written as quoted text)"
        for value in (name, *_leaves(plain)):
            spellings = _spellings(value)
            needed[spellings] += 1
            owners.setdefault(spellings, name if value is name else f"{name}: {str(value)[:60]}")
    for spellings, times in needed.items():
        if sum(text.count(spelling) for spelling in spellings) < times:
            return owners[spellings]
    return ""


def _leaves(value: Any) -> Iterator[Any]:
    """Keys and plain values of nested arguments; empty texts and nulls say nothing that could be looked for."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None and value != "":
        yield value


def _spellings(value: Any) -> tuple[str, ...]:
    """How a template may write a value: as it is, or as JSON, ASCII or not, or with its signs escaped for HTML."""
    if not isinstance(value, str):
        return tuple(sorted({str(value), json.dumps(value)}))
    core = value.strip() or value
    plain, ascii_only = json.dumps(core, ensure_ascii=False)[1:-1], json.dumps(core)[1:-1]
    for_html = (
        ascii_only.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("'", "\\u0027")
    )
    return tuple(sorted({core, plain, ascii_only, for_html, html.escape(core), plain.replace("/", "\\/")}))
