"""Ollama's Modelfile for a GGUF file.

From 0.30 on Ollama prefers the chat template inside the GGUF file where that one can do more than the TEMPLATE, such as
tools; earlier versions know the TEMPLATE alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from studio.export.go_template import go_template, turns
from studio.template import Template

OLLAMA = {"repetition_penalty": "repeat_penalty"}  # its names, where they are not transformers'


def shows_tools(template: Template) -> bool:
    """Whether the TEMPLATE shows the tools that the chat template shows."""
    parts = turns(template)
    return parts is not None and parts.tools is not None


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
            "# This chat template does more than put marks around each turn. Ollama 0.30 takes it from the GGUF file."
        )
    marks = ['"' * (3 if '"' in stop else 1) for stop in stops]
    lines += [f"PARAMETER stop {mark}{stop}{mark}" for mark, stop in zip(marks, stops, strict=True)]
    advised = {"temperature": 0.7, "repetition_penalty": 1.0, **sampling}
    lines += [f"PARAMETER {OLLAMA.get(name, name)} {value:g}" for name, value in advised.items()]
    if context:
        lines.append(f"PARAMETER num_ctx {min(context, 8192)}")
    return "\n".join(lines) + "\n"
