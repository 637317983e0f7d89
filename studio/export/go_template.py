"""A chat template in Go's template language, for Ollama, derived from what the Jinja template writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from studio.errors import TemplateError
from studio.export import go_tools
from studio.export.go_tools import quoted
from studio.template import Message, Template

S, U, A, V = "q7Zsystem", "q7Zquestion", "q7Zanswer", "q7Zsecond"


@dataclass(frozen=True)
class Turns:
    """The text before and after each kind of turn.

    begin: before all turns. ask: the generation prompt. default: the template's own system prompt.
    place: the system prompt is a turn of its own, or stands inside the first or last question, followed by `between`.
    """

    begin: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    ask: str
    place: Literal["own", "first", "last"] = "own"
    between: str = ""
    default: str = ""
    tools: go_tools.Tools | None = None


def turns(template: Template) -> Turns | None:
    """Derive the turns of a template, or None where they depend on more than their position."""
    try:
        asked, open_end = _text(template, [U]), _text(template, [U], True)
        answered, again = _text(template, [U, A]), _text(template, [U, A, V])
        with_system, with_system_again = _text(template, [S, U]), _text(template, [S, U, A, V])
    except TemplateError:
        return None
    texts = [asked, answered, again, with_system, with_system_again]
    if not open_end.startswith(asked):  # some write the end token behind a conversation that is not to be answered
        texts = [text.removesuffix(template.special.get("eos_token", "")) for text in texts]
    asked, answered, again, with_system, with_system_again = texts
    if not (open_end.startswith(asked) and answered.startswith(asked) and again.startswith(answered)):
        return None
    answer, second = _around(answered[len(asked) :], A), _around(again[len(answered) :], V)
    if not (answer and second and asked.endswith(second[0] + U + second[1])):
        return None
    begin = asked[: len(asked) - len(second[0] + U + second[1])]
    known = {"user": second, "assistant": answer, "ask": open_end[len(asked) :]}
    for system in _systems(begin, with_system, with_system_again, second):
        candidate = Turns(**system, **known)
        if _renders_alike(candidate, template):
            tools = go_tools.derive(template, second, answer) if candidate.place == "own" else None
            complete = replace(candidate, tools=tools)
            return complete if tools and _tools_alike(complete, template) else candidate
    return None


def _systems(begin: str, with_system: str, with_system_again: str, user: tuple[str, str]) -> list[dict]:
    """The candidate forms of the system prompt, to be tried in turn."""
    tail, candidates = user[0] + U + user[1], []
    if with_system.endswith(tail) and (own := _around(with_system[: -len(tail)], S)):
        before, after = own
        if before.startswith(begin):
            candidates.append({"begin": begin, "system": (before[len(begin) :], after)})
        if begin.startswith(before) and begin.endswith(after) and len(begin) >= len(before) + len(after):
            default = begin[len(before) : len(begin) - len(after)]
            candidates.append({"begin": "", "system": own, "default": default})
    head = begin + user[0] + S
    if with_system.startswith(head) and U in with_system:
        between = with_system[len(head) : with_system.index(U)]
        place = "first" if with_system_again.startswith(head) else "last"
        candidates.append({"begin": begin, "system": ("", ""), "place": place, "between": between})
    return candidates


def _around(text: str, content: str) -> tuple[str, str] | None:
    before, match, after = text.partition(content)
    return (before, after) if match else None


def _text(template: Template, contents: list[str], ask: bool = False) -> str:
    roles = {S: "system", U: "user", A: "assistant", V: "user"}
    messages = [_message(roles[content], content) for content in contents]
    return template.render(messages, add_generation_prompt=True).text if ask else template.plain(messages)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _renders_alike(parts: Turns, template: Template) -> bool:
    """Whether the turns write what the template writes, for conversations of several shapes."""
    conversation = [
        _message("user", "Hello?"),
        _message("assistant", "Hi."),
        _message("user", "Again?"),
        _message("assistant", "Yes."),
        _message("user", "And?"),
    ]
    for start in (conversation[:1], conversation[:3], conversation):
        for messages in (start, [_message("system", "Be brief."), *start]):
            if rendered(parts, messages) != template.render(messages, add_generation_prompt=True).text:
                return False
    return True


def _tools_alike(parts: Turns, template: Template) -> bool:
    """The same for conversations with tools, calls and their results."""
    user, result, other = _message("user", "Hello?"), _message("tool", "1"), _message("tool", "2")
    answer = _message("assistant", "Yes.")
    called, spoken = go_tools.calling("", "a"), go_tools.calling("I look.", "a", "b")
    talks = [
        [user],
        [user, called, result],
        [user, called, result, answer, user],
        [user, spoken, result, other, answer, user, called, result],
    ]
    talks += [[_message("system", parts.default or "Be brief."), *talk] for talk in talks]
    declared: list[list[dict[str, Any]]] = [[], [go_tools.tool("a")], [go_tools.tool("a"), go_tools.tool("b")]]
    for tools in declared:
        for talk in talks:
            try:
                wanted = template.render(talk, add_generation_prompt=True, tools=tools or None).text
            except TemplateError:
                return False
            if rendered(parts, talk, tools) != wanted:
                return False
    return True


def go_template(parts: Turns) -> str:
    """The turns in Go's template language, over Ollama's .Messages and .Tools, ending with the generation prompt."""
    tools = parts.tools
    system, inside = quoted(parts.system[0]) + "{{ $m.Content }}" + quoted(parts.system[1]), ""
    if parts.place != "own":
        condition = "if $system" if parts.place == "first" else "if and $system (eq (len (slice $.Messages $i)) 1)"
        system = "{{- $system = $m.Content }}"
        inside = "{{- " + condition + " }}{{ $system }}" + quoted(parts.between) + '{{- $system = "" }}{{- end }}'
    if tools:
        system = "{{- if not (and $.Tools (eq $i 0)) }}" + system + "{{- end }}"
    turn = (
        '{{- if eq $m.Role "system" }}'
        + system
        + '{{- else if eq $m.Role "user" }}'
        + quoted(parts.user[0])
        + inside
        + "{{ $m.Content }}"
        + quoted(parts.user[1])
        + '{{- else if eq $m.Role "assistant" }}'
        + quoted(parts.assistant[0])
        + "{{ $m.Content }}"
        + (go_tools.called(tools) if tools else "")
        + quoted(parts.assistant[1])
        + "{{- end }}"
    )
    begin, end = '{{- $system := "" }}' + quoted(parts.begin), "{{- end }}"
    if tools:
        begin += "{{- $results := false }}" + go_tools.declared(tools)
        other = go_tools.closed(tools) + "{{- $results = false }}" + turn
        turn = (
            f'{{{{- if eq $m.Role "tool" }}}}{go_tools.result(tools)}{{{{- $results = true }}}}{{{{- else }}}}{other}'
            "{{- end }}"
        )
        end += go_tools.closed(tools)
    return begin + "{{- range $i, $m := .Messages }}" + turn + end + quoted(parts.ask)


def rendered(parts: Turns, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
    """What the Go template writes, to be compared with the Jinja template."""
    if parts.default and not any(message["role"] == "system" for message in messages):
        messages = [_message("system", parts.default), *messages]
    texts, system, before_role = [parts.begin], "", ""
    if tools and parts.tools:
        texts.append(go_tools.declared_text(parts.tools, messages, tools))
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if parts.tools:
            opened, joint, closed = parts.tools.results
            if role == "tool":
                texts.append((joint if before_role == role else opened) + content)
            elif before_role == "tool":
                texts.append(closed)
            content += go_tools.called_text(parts.tools, message)
        before_role = role
        if role == "tool" or (role == "system" and tools and not index):
            continue
        if role == "system" and parts.place != "own":
            system = content
            continue
        before, after = {"system": parts.system, "user": parts.user, "assistant": parts.assistant}[role]
        if role == "user" and system and (parts.place == "first" or index == len(messages) - 1):
            content, system = system + parts.between + content, ""
        texts.append(before + content + after)
    if before_role == "tool" and parts.tools:
        texts.append(parts.tools.results[2])
    return "".join(texts) + parts.ask
