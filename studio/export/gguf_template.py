"""The chat template inside a GGUF file: what it writes there has the ids that the model was trained on.

llama.cpp gives a template two special tokens, its own beginning and end; and its tokenizer keeps the blanks beside a
special token that transformers' takes away (Phi-3), and puts none before the first word of a text.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from studio.template import Template

NAME = re.compile(r"\b\w+_token\b")


def adapted(template: Template, tokenizer: Any, end: str) -> Template:
    """The template for llama.cpp, its own text where nothing differs.

    tokenizer: a tokenizers.Tokenizer. end: the text of the file's end token.
    """
    special, begin = template.special, template.special.get("bos_token", "")
    theirs = {"bos_token": begin if tokenizer.token_to_id(begin) is not None else None, "eos_token": end}
    named = {name: special.get(name, "") for name in dict.fromkeys(NAME.findall(template.text))}
    bound = [f"{{% set {name} = {_quoted(text)} %}}" for name, text in named.items() if text != theirs.get(name, "")]
    return replace(template, text="".join(bound) + _trimmed(template, tokenizer))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _trimmed(template: Template, tokenizer: Any) -> str:
    """The template whose text has no blanks where the tokenizer takes them away, and one where it puts one."""
    added = list(tokenizer.get_added_tokens_decoder().values())
    written = (template.text, *template.special.values())
    trimming = [
        token for token in added if (token.lstrip or token.rstrip) and any(token.content in text for text in written)
    ]
    first = ""
    if getattr(tokenizer.pre_tokenizer, "prepend_scheme", "") == "first":
        opening = template.render([{"role": "user", "content": "a"}], add_generation_prompt=True).text
        first = "" if opening.startswith((" ", *(token.content for token in added))) else "' ' + "
    if not trimming and not first:
        return template.text
    steps = "".join(_without_blanks(token) for token in trimming)
    whole = template.text.removesuffix("\n")  # Jinja leaves out the last line break
    kept = f"{{% set whole %}}{whole}{{% endset %}}{{% set kept = namespace(text=whole) %}}"
    return f"{kept}{steps}{{{{ {first}kept.text }}}}"


def _without_blanks(token: Any) -> str:
    mark = _quoted(token.content)
    before, after = "kept.text.rstrip()" if token.lstrip else "kept.text", "part.lstrip()" if token.rstrip else "part"
    return (
        f"{{% set parts = kept.text.split({mark}) %}}{{% set kept.text = parts[0] %}}"
        f"{{% for part in parts[1:] %}}{{% set kept.text = {before} + {mark} + {after} %}}{{% endfor %}}"
    )
