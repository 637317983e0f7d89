"""Ollama's Modelfile: the chat template in Go's template language, derived from the Jinja template's output.

Ollama before 0.5 ignores the Jinja template inside a GGUF file, and later versions prefer a TEMPLATE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from studio.errors import TemplateError
from studio.template import Message, Template

OLLAMA = {"repetition_penalty": "repeat_penalty"}  # its names, where they are not transformers'
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


def turns(template: Template) -> Turns | None:
    """Derive the turns of a template, or None where they depend on more than their position."""
    try:
        asked, open_end = _text(template, [U]), _text(template, [U], True)
        answered, again = _text(template, [U, A]), _text(template, [U, A, V])
        with_system, with_system_again = _text(template, [S, U]), _text(template, [S, U, A, V])
    except TemplateError:
        return None
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
            return candidate
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


def go_template(parts: Turns) -> str:
    """The turns in Go's template language, over Ollama's .Messages, ending with the generation prompt."""

    def quoted(text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return '{{ "' + escaped + '" }}' if text else ""

    if parts.place == "own":
        system, inside = quoted(parts.system[0]) + "{{ $m.Content }}" + quoted(parts.system[1]), ""
    else:
        condition = "if $system" if parts.place == "first" else "if and $system (eq (len (slice $.Messages $i)) 1)"
        system = "{{- $system = $m.Content }}"
        inside = "{{- " + condition + " }}{{ $system }}" + quoted(parts.between) + '{{- $system = "" }}{{- end }}'
    return (
        '{{- $system := "" }}' + quoted(parts.begin) + "{{- range $i, $m := .Messages }}"
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
        + quoted(parts.assistant[1])
        + "{{- end }}{{- end }}"
        + quoted(parts.ask)
    )


def rendered(parts: Turns, messages: list[Message]) -> str:
    """What the Go template writes, to be compared with the Jinja template."""
    if parts.default and not any(message["role"] == "system" for message in messages):
        messages = [_message("system", parts.default), *messages]
    written, system = [parts.begin], ""
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "system" and parts.place != "own":
            system = content
            continue
        before, after = {"system": parts.system, "user": parts.user, "assistant": parts.assistant}[role]
        if role == "user" and system and (parts.place == "first" or index == len(messages) - 1):
            content, system = system + parts.between + content, ""
        written.append(before + content + after)
    return "".join(written) + parts.ask


def modelfile(
    template: Template,
    file: str,
    stops: tuple[str, ...],
    context: int | None = None,
    sampling: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """The Modelfile for a GGUF file. A comment says so where the template cannot be written in Go's language.

    sampling: what the base advises, under transformers' names; the chat's temperature where it advises none, and no
    penalty of Ollama's own.
    """
    parts = turns(template)
    lines = [f"FROM ./{file}"]
    if parts:
        lines.append(f'TEMPLATE """{go_template(parts)}"""')
        if parts.default:
            lines.append(f'SYSTEM """{parts.default}"""')
    else:
        lines.append(
            "# This chat template does more than put marks around each turn; Ollama takes the one inside the GGUF file."
        )
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    advised = {"temperature": 0.7, "repetition_penalty": 1.0, **sampling}
    lines += [f"PARAMETER {OLLAMA.get(name, name)} {value:g}" for name, value in advised.items()]
    if context:
        lines.append(f"PARAMETER num_ctx {min(context, 8192)}")
    return "\n".join(lines) + "\n"
