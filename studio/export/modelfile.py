"""Ollama's Modelfile: the chat template in Ollama's own language, derived from what the Jinja template writes, and checked against it."""

from __future__ import annotations

from typing import NamedTuple

from studio.errors import TemplateError
from studio.template import Template

S, U, A, V = "q7Zsystem", "q7Zquestion", "q7Zanswer", "q7Zsecond"


class Turns(NamedTuple):
    """The text around each part: before and after the system prompt, a question, an answer; `default`: a system prompt of its own."""

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    default: str


def turns(template: Template) -> Turns | None:
    """The parts of a template, or None where they depend on more than their place (Ollama then reads the Jinja in the GGUF)."""
    stop = template.stop[0] if template.stop else ""
    try:
        text = template.render([_m("system", S), _m("user", U), _m("assistant", A), _m("user", V)], add_generation_prompt=True).text
        bare = template.render([_m("user", U)], add_generation_prompt=True).text
    except TemplateError:
        return None
    places = [text.find(mark) for mark in (S, U, A, V)]
    if -1 in places or places != sorted(places) or not stop:
        return None
    before, between, to_answer, to_second, last = _cut(text, (S, U, A, V))
    if to_answer != last or not to_second.startswith(stop):
        return None
    rest = to_second[len(stop):]
    blank = rest[: len(rest) - len(rest.lstrip("\n"))]
    open_user = rest[len(blank):]
    if not between.endswith(open_user):
        return None
    close_system = between[: len(between) - len(open_user)]
    lead = bare[: bare.find(U)]
    default = ""
    if lead != open_user:
        if not (lead.startswith(before) and lead.endswith(between)):
            return None
        default = lead[len(before): len(lead) - len(between)]
    return Turns((before, close_system), (open_user, ""), (to_answer, stop + blank), default)


def _m(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _cut(text: str, marks: tuple[str, ...]) -> list[str]:
    pieces = []
    for mark in marks:
        piece, _, text = text.partition(mark)
        pieces.append(piece)
    return [*pieces, text]


def go_template(parts: Turns) -> str:
    """In Go's template language, as Ollama runs it: over .Messages, the last answer left open."""
    def quoted(text: str) -> str:
        return "{{ " + '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"' + " }}" if text else ""

    # system and question texts are .Content; an answer that is complete is closed, the one being asked for is only opened
    return ("{{- range .Messages }}"
            '{{- if eq .Role "system" }}' + quoted(parts.system[0]) + "{{ .Content }}" + quoted(parts.system[1])
            + '{{- else if eq .Role "user" }}' + quoted(parts.user[0]) + "{{ .Content }}" + quoted(parts.user[1])
            + '{{- else if eq .Role "assistant" }}' + quoted(parts.assistant[0]) + "{{ .Content }}" + quoted(parts.assistant[1])
            + "{{- end }}{{- end }}" + quoted(parts.assistant[0]))


def rendered(parts: Turns, messages: list[dict[str, str]]) -> str:
    """What that Go template writes, for the check against the Jinja one."""
    texts = [parts.system, parts.user, parts.assistant]
    roles = ("system", "user", "assistant")
    lead = [] if any(m["role"] == "system" for m in messages) or not parts.default else [_m("system", parts.default)]
    return "".join(texts[roles.index(m["role"])][0] + m["content"] + texts[roles.index(m["role"])][1] for m in [*lead, *messages]) + parts.assistant[0]


def modelfile(template: Template, file: str, stops: tuple[str, ...], context: int | None = None) -> str:
    """The Modelfile beside `file`. Where the template cannot be put in Ollama's language a comment says so."""
    parts = turns(template)
    lines = [f"FROM ./{file}"]
    checks = ([_m("user", "Hello?")], [_m("system", "Be brief."), _m("user", "Hello?"), _m("assistant", "Hi."), _m("user", "Again?")])
    if parts and all(rendered(parts, check) == template.render(check, add_generation_prompt=True).text for check in checks):
        lines.append(f'TEMPLATE """{go_template(parts)}"""')
        if parts.default:
            lines.append(f'SYSTEM """{parts.default}"""')
    else:
        lines.append("# This chat template does more than put marks around each turn; Ollama takes the one inside the GGUF file.")
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines.append("PARAMETER temperature 0.7")
    if context:
        lines.append(f"PARAMETER num_ctx {min(context, 8192)}")
    return "\n".join(lines) + "\n"
