"""Tools in Go's template language, for chat templates that show them in the system turn as Qwen's do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from studio.errors import TemplateError
from studio.template import Message, Template

N, R, X = "q7Zname", "q7Zresult", "q7Zother"
ARGUMENTS = {"q7Zkey": "q7Zvalue"}


@dataclass(frozen=True)
class Tools:
    """The text around tools, calls and their results.

    alone: before the tools where the conversation has no system prompt. system: around its system prompt, else.
    tools: between two, and after the last. call: before the name, before and after the arguments. lead: between an
    answer's words and its first call. calls: between two. results: before the first, between two, after the last.
    """

    alone: str
    system: tuple[str, str]
    tools: tuple[str, str]
    call: tuple[str, str, str]
    lead: str
    calls: str
    results: tuple[str, str, str]


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "required": ["x"], "properties": {"x": {"type": "string", "description": "é"}}}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


def calling(content: str, *names: str) -> Message:
    calls = [{"type": "function", "function": {"name": name, "arguments": ARGUMENTS}} for name in names]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def written(value: Any) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def derive(template: Template, user: tuple[str, str], answer: tuple[str, str]) -> Tools | None:
    """The tools of a template whose turns have this text around them, or None where they are written otherwise."""
    system, asked = {"role": "system", "content": X}, {"role": "user", "content": R}
    said, result, other = calling(X, N), {"role": "tool", "content": R}, {"role": "tool", "content": X}
    turn = user[0] + R + user[1]
    try:
        first, start = written(tool(N)["function"]), template.plain([asked])
        alone, after = _cut(_declared(template, [asked], N), first, turn)
        between, _ = _cut(_declared(template, [asked], N, X), first, turn)[1].split(written(tool(X)["function"]))
        before, _, own = _cut(_declared(template, [system, asked], N), first, turn)[0].partition(X)
        call = _inside(template.plain([asked, calling("", N)]), start, answer)
        name, closing = _cut(call, written(ARGUMENTS))
        opening, middle = _cut(name, N)
        lead = _inside(template.plain([asked, said]), start + answer[0] + X, ("", answer[1])).removesuffix(call)
        calls = _inside(template.plain([asked, calling("", N, N)]), start, answer).split(call)[1]
        talk = [asked, calling("", N)]
        start = template.plain(talk)
        opened, closed = _cut(_inside(template.plain([*talk, result]), start, ("", "")), R)
        joint = _inside(template.plain([*talk, result, other]), start + opened + R, ("", X + closed))
    except (TemplateError, ValueError, IndexError):
        return None
    return Tools(
        alone, (before, own), (between, after), (opening, middle, closing), lead, calls, (opened, joint, closed)
    )


def _declared(template: Template, messages: list[Message], *names: str) -> str:
    return template.render(messages, add_generation_prompt=True, tools=[*map(tool, names)]).text


def _cut(text: str, at: str, end: str = "") -> tuple[str, str]:
    """What stands before and after a text, and before `end`. Raises ValueError where it does not stand there once."""
    before, after = text.partition(end)[0].split(at) if end else text.split(at)
    return before, after


def _inside(text: str, start: str, around: tuple[str, str]) -> str:
    if not (text.startswith(start + around[0]) and text.endswith(around[1])):
        raise ValueError
    return text[len(start + around[0]) : len(text) - len(around[1])]


def declared_text(parts: Tools, messages: list[Message], tools: list[dict[str, Any]]) -> str:
    """What `declared` writes, with JSON as chat templates write it."""
    system = messages[0]["content"].join(parts.system) if messages[0]["role"] == "system" else parts.alone
    return system + parts.tools[0].join(written(function["function"]) for function in tools) + parts.tools[1]


def called_text(parts: Tools, message: Message) -> str:
    """What `called` writes, with JSON as chat templates write it."""
    functions = [call["function"] for call in message.get("tool_calls") or []]
    before, middle, after = parts.call
    calls = [before + function["name"] + middle + written(function["arguments"]) + after for function in functions]
    return (parts.lead if calls and message["content"] else "") + parts.calls.join(calls)


def quoted(text: str) -> str:
    """A text as Go's template language writes it.

    Ollama from 0.30 on prefers the chat template of the GGUF file, unless it finds "tool_response" in this one.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '{{ "' + escaped.replace("tool_response", 'tool" }}{{ "_response') + '" }}' if text else ""


def declared(parts: Tools) -> str:
    """The system turn with the tools, in Go's language."""
    return (
        '{{- if .Tools }}{{- if eq (index .Messages 0).Role "system" }}'
        + quoted(parts.system[0])
        + "{{ (index .Messages 0).Content }}"
        + quoted(parts.system[1])
        + "{{- else }}"
        + quoted(parts.alone)
        + "{{- end }}{{- range $j, $t := .Tools }}{{- if $j }}"
        + quoted(parts.tools[0])
        + "{{- end }}{{ json $t.Function }}{{- end }}"
        + quoted(parts.tools[1])
        + "{{- end }}"
    )


def called(parts: Tools) -> str:
    """The calls of an answer. Ollama takes the first bare text behind `if .ToolCalls` for the mark of a call."""
    return (
        "{{- if and $m.Content $m.ToolCalls }}"
        + quoted(parts.lead)
        + "{{- end }}{{- if .ToolCalls }}{{- range $k, $c := .ToolCalls }}"
        + parts.call[0]
        + "{{ $c.Function.Name }}"
        + quoted(parts.call[1])
        + "{{ json $c.Function.Arguments }}"
        + quoted(parts.call[2])
        + "{{- if lt $k (len (slice $m.ToolCalls 1)) }}"
        + quoted(parts.calls)
        + "{{- end }}{{- end }}{{- end }}"
    )


def result(parts: Tools) -> str:
    """A call's result; $results says whether one stands before it."""
    opened, joint, _ = parts.results
    return f"{{{{- if $results }}}}{quoted(joint)}{{{{- else }}}}{quoted(opened)}{{{{- end }}}}{{{{ $m.Content }}}}"


def closed(parts: Tools) -> str:
    """What ends results, before another turn and behind all."""
    return f"{{{{- if $results }}}}{quoted(parts.results[2])}{{{{- end }}}}"
