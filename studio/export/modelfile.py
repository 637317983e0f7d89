"""Ollama's Modelfile: the chat template in Go's template language, derived from what the Jinja template writes, and checked against it.

Ollama before 0.5 knows nothing of the Jinja inside a GGUF file, and later ones prefer a TEMPLATE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.errors import TemplateError
from studio.template import Message, Template

S, U, A, V = "q7Zsystem", "q7Zquestion", "q7Zanswer", "q7Zsecond"


@dataclass(frozen=True)
class Turns:
    """The text before and after each part; `begin` before all, `ask` before the answer asked for; `default`: a system prompt of its own.

    place: where the system prompt goes: a turn of its own, or (with `between` behind it) inside the first or the last question.
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
    """The parts of a template, or None where they depend on more than their place."""
    try:
        asked, open_end = _text(template, [U]), _text(template, [U], True)
        answered, again = _text(template, [U, A]), _text(template, [U, A, V])
        told, told_again = _text(template, [S, U]), _text(template, [S, U, A, V])
    except TemplateError:
        return None
    if not (open_end.startswith(asked) and answered.startswith(asked) and again.startswith(answered)):
        return None
    answer, second = _around(answered[len(asked) :], A), _around(again[len(answered) :], V)
    if not (answer and second and asked.endswith(second[0] + U + second[1])):
        return None
    begin = asked[: len(asked) - len(second[0] + U + second[1])]
    known = {"user": second, "assistant": answer, "ask": open_end[len(asked) :]}
    for found in _systems(begin, told, told_again, second):
        made = Turns(**found, **known)
        if _holds(made, template):
            return made
    return None


def _systems(begin: str, told: str, told_again: str, user: tuple[str, str]) -> list[dict]:
    """The ways in which a system prompt can have been written, to be tried in turn."""
    tail, ways = user[0] + U + user[1], []
    if told.endswith(tail) and (own := _around(told[: -len(tail)], S)):
        if own[0].startswith(begin):
            ways.append({"begin": begin, "system": (own[0][len(begin) :], own[1])})
        if begin.startswith(own[0]) and begin.endswith(own[1]) and len(begin) >= len(own[0]) + len(own[1]):
            ways.append({"begin": "", "system": own, "default": begin[len(own[0]) : len(begin) - len(own[1])]})
    head = begin + user[0] + S
    if told.startswith(head) and U in told:
        between = told[len(head) : told.index(U)]
        place = "first" if told_again.startswith(head) else "last"
        ways.append({"begin": begin, "system": ("", ""), "place": place, "between": between})
    return ways


def _around(text: str, mark: str) -> tuple[str, str] | None:
    before, found, after = text.partition(mark)
    return (before, after) if found else None


def _text(template: Template, contents: list[str], ask: bool = False) -> str:
    roles = {S: "system", U: "user", A: "assistant", V: "user"}
    return (
        template.render([_m(roles[one], one) for one in contents], add_generation_prompt=ask).text
        if ask
        else template.plain([_m(roles[one], one) for one in contents])
    )


def _m(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _holds(parts: Turns, template: Template) -> bool:
    """Whether the parts write what the template writes, for conversations of several shapes."""
    talk = [
        _m("user", "Hello?"),
        _m("assistant", "Hi."),
        _m("user", "Again?"),
        _m("assistant", "Yes."),
        _m("user", "And?"),
    ]
    for check in (talk[:1], talk[:3], talk):
        for messages in (check, [_m("system", "Be brief."), *check]):
            if rendered(parts, messages) != template.render(messages, add_generation_prompt=True).text:
                return False
    return True


def go_template(parts: Turns) -> str:
    """In Go's template language, as Ollama runs it: over .Messages, the answer being asked for left open."""

    def quoted(text: str) -> str:
        return (
            "{{ " + '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"' + " }}"
            if text
            else ""
        )

    if parts.place == "own":
        system, inside = quoted(parts.system[0]) + "{{ $m.Content }}" + quoted(parts.system[1]), ""
    else:
        here = "if $system" if parts.place == "first" else "if and $system (eq (len (slice $.Messages $i)) 1)"
        system = "{{- $system = $m.Content }}"
        inside = "{{- " + here + " }}{{ $system }}" + quoted(parts.between) + '{{- $system = "" }}{{- end }}'
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
    """What that Go template writes, for the check against the Jinja one."""
    lead = [] if any(m["role"] == "system" for m in messages) or not parts.default else [_m("system", parts.default)]
    written, system = [parts.begin], ""
    for place, message in enumerate(messages := [*lead, *messages]):
        role, content = message["role"], message["content"]
        if role == "system" and parts.place != "own":
            system = content
            continue
        before, after = {"system": parts.system, "user": parts.user, "assistant": parts.assistant}[role]
        if role == "user" and system and (parts.place == "first" or place == len(messages) - 1):
            content, system = system + parts.between + content, ""
        written.append(before + content + after)
    return "".join(written) + parts.ask


def modelfile(template: Template, file: str, stops: tuple[str, ...], context: int | None = None) -> str:
    """The Modelfile beside `file`. Where the template cannot be put in Ollama's language a comment says so."""
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
    lines.append("PARAMETER temperature 0.7")
    if context:
        lines.append(f"PARAMETER num_ctx {min(context, 8192)}")
    return "\n".join(lines) + "\n"
