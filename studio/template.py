"""Template: a named Jinja file that renders a conversation, knows which spans are trained on, and what ends a turn."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from studio.base.tokenizer_files import added_bos, model_template, special_tokens, vocabulary
from studio.errors import TemplateError, reason_of
from studio.home import PROJECT
from studio.text import assistant_spans, sandbox
from studio.text.sandbox import CLOSE, OPEN

# of the wheel; of a checkout
FOLDER = next(folder for folder in (PROJECT / "studio" / "templates", PROJECT / "templates") if folder.is_dir())
FALLBACK = "chatml"
# looked through for a model that brings no template
SUITED = ("chatml", "llama3", "gemma", "phi", "deepseek", "mistral", "alpaca")
TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
ABOUT = re.compile(r"\s*\{#-?(.*?)-?#\}", re.DOTALL)  # the comment that opens a template file
FORGED = {ord(OPEN): None, ord(CLOSE): None}
THINKING = "<think>"  # with which some templates open the answer
REASONING = ("reasoning_content", "reasoning", "thinking")  # the names templates know a turn's reasoning by
MARK = "q9vx"  # a word no template writes by itself
Message = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """A conversation as text. spans: [start, end) in characters of what the assistant wrote, end of turn included.

    masked_spans: what of it is never trained, whatever is trained on (a Renderer's spans begin behind it).
    left_out: kinds of problems: what the template cannot write.
    """

    text: str
    spans: list[tuple[int, int]]
    masked_spans: Sequence[tuple[int, int]] = ()
    left_out: tuple[str, ...] = ()


def names() -> list[str]:
    """The templates that can be asked for by name, without "model" and "auto"."""
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def load(name: str = "auto", model_folder: str | Path | None = None) -> Template:
    """A template by name. "model": the model's own; "auto": the model's own, else one whose marks are its tokens.

    Where the model's tokenizer begins a text with a BOS and the named template writes none, the BOS is added to it:
    training, chat, the saved template and GGUF then agree. A model's own template stays as it is.
    Raises TemplateError when there is none of that name, or it is no valid Jinja.
    """
    special = special_tokens(model_folder)
    if name in ("auto", "model"):
        own = model_template(model_folder)
        if own:
            return Template("model", own, special)
        if name == "model":
            hint = f"Choose one of: {', '.join(names())}."
            raise TemplateError("This model brings no chat template of its own.", hint, "data.template")
        name = _suited(model_folder, special)
    if name not in names():
        hint = f"Choose one of: auto, model, {', '.join(names())}."
        raise TemplateError(f"There is no template named {name!r}.", hint, "data.template")
    text, bos = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8"), added_bos(model_folder)
    return Template(name, _with_bos(text, bos, special) if bos and "bos_token" not in text else text, special)


def _with_bos(text: str, bos: str, special: dict[str, str]) -> str:
    """The template with the BOS before everything it writes, behind its opening comment."""
    about = ABOUT.match(text)
    at = about.end() if about else 0
    name = "bos_token" if special.get("bos_token") == bos else json.dumps(bos)
    return text[:at] + "{{- " + name + " }}" + text[at:]


def _suited(model_folder: str | Path | None, special: dict[str, str]) -> str:
    """The first template whose control tokens are single tokens of the model: other programs stop only at such.

    Alpaca, the last one, needs no token but the tokenizer's own end. ChatML where no tokenizer is known or none fits.
    """
    file = Path(model_folder or "-", "tokenizer.json")
    if not file.is_file():
        return FALLBACK
    known = vocabulary(file, file.stat().st_mtime_ns)
    for name in SUITED:
        candidate = Template(name, (FOLDER / f"{name}.jinja").read_text(encoding="utf-8"), special)
        try:
            control_tokens = candidate.control_tokens
        except TemplateError:  # it needs a special token that this tokenizer does not name
            continue
        if control_tokens <= known:
            return name
    return FALLBACK


@dataclass(frozen=True)
class Template:
    """text is the Jinja source, kept with the run. special: the tokenizer's bos_token, eos_token, …"""

    name: str
    text: str
    special: dict[str, str] = field(default_factory=dict)

    def render(self, messages: list[Message], add_generation_prompt: bool = False, **extra: Any) -> Rendered:
        """The conversation as text with its trainable spans. Raises TemplateError, which says what the template said.

        extra: variables of the template, like tools or enable_thinking. With a generation prompt there are no spans.
        """
        if add_generation_prompt or TAG.search(self.text):
            return _unmark(self._run(messages, add_generation_prompt, **extra))
        messages = [message | {"content": assistant_spans.clean(message["content"])} for message in messages]
        text = self._run(messages, False, **extra)

        def run(turns: list[Message], prompt: bool) -> str:
            return self._run(turns, prompt, **extra)

        found = assistant_spans.spans(run, messages, text, self._tail, self.stop_strings)
        if found is None:
            raise TemplateError(
                f"With the template {self.name!r} it cannot be told which part of this conversation "
                "the assistant wrote.",
                f"Choose one of: {', '.join(names())}.",
                "data.template",
            )
        if self.borrowed_stops and messages and messages[-1]["role"] == "assistant":
            text += self.borrowed_stops[-1 if messages[-1].get("tool_calls") else 0]
            found[-1] = (found[-1][0], len(text))
        return Rendered(text, found)

    def _run(self, messages: list[Message], add_generation_prompt: bool, **extra: Any) -> str:
        variables = {"tools": None, "documents": None, **self.special, **extra}
        messages = [{key: _clean(value) for key, value in message.items() if value is not None} for message in messages]
        try:
            return sandbox.render(
                self.text, variables | {"messages": messages, "add_generation_prompt": add_generation_prompt}
            )
        except RecursionError as error:
            raise TemplateError(
                f"The template {self.name!r} was stopped: it calls itself without end.", "", "data.template"
            ) from error
        except jinja2.exceptions.SecurityError as error:
            raise TemplateError(
                f"The template {self.name!r} was stopped: {error.message}.", "Choose another template.", "data.template"
            ) from error
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            ArithmeticError,
            LookupError,
        ) as error:
            hint = "Choose another template." if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise TemplateError(
                f"The template {self.name!r} cannot render this conversation: {reason_of(error)}.",
                hint,
                "data.template",
            ) from error

    @property
    def about(self) -> str:
        """Whose format it is: the comment that opens the file."""
        found = ABOUT.match(self.text)
        return " ".join(found.group(1).split()) if found else ""

    @cached_property
    def stop_strings(self) -> list[str]:
        """What ends a turn: the text this template writes after an assistant's words; [] when it writes nothing.

        The first ends a conversation's last turn. Raises TemplateError when the template cannot render plain text.
        Where it writes nothing, the tokens that open the next turn end one (see assistant_spans.openers), and `render`
        puts one behind the last.
        """
        return assistant_spans.turn_ends(self._plain, self.special) or self.borrowed_stops

    @cached_property
    def control_tokens(self) -> set[str]:
        """What a model should know as single tokens: the marks around turns and what ends one. Raises TemplateError."""
        talk = [
            {"role": "user", "content": assistant_spans.QUESTION},
            {"role": "assistant", "content": assistant_spans.ANSWER},
        ]
        return {*assistant_spans.TOKEN.findall(self.render(talk, add_generation_prompt=True).text), *self.stop_strings}

    @cached_property
    def borrowed_stops(self) -> list[str]:
        """The tokens that open the next turn, where nothing else ends one; [] for other templates."""
        if TAG.search(self.text) or assistant_spans.turn_ends(self._plain, self.special):
            return []
        return assistant_spans.openers(self._plain, self._tail)

    @cached_property
    def _tail(self) -> str:
        return assistant_spans.prompt_tail(self._plain)

    def plain(self, messages: list[Message]) -> str:
        """The conversation as the template's own text, without an end of turn that it borrows. Raises TemplateError."""
        return self._plain(messages, False)

    @cached_property
    def reasoning_key(self) -> str | None:
        """The name under which the template takes the reasoning of a turn; None where it has no place for it."""
        return next(
            (
                key
                for key in REASONING
                if self._shows([{"role": "assistant", "content": assistant_spans.ANSWER, key: MARK}])
            ),
            None,
        )

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the tools that a conversation declares stand in its text."""
        tool = {
            "type": "function",
            "function": {"name": MARK, "description": MARK, "parameters": {"type": "object", "properties": {}}},
        }
        return self._shows([], tools=[tool])

    def _shows(self, more: list[Message], **extra: Any) -> bool:
        """Whether MARK stands in a small conversation that ends in these messages."""
        messages = [
            {"role": "user", "content": assistant_spans.QUESTION},
            *(more or [{"role": "assistant", "content": assistant_spans.ANSWER}]),
        ]
        try:
            return MARK in self._run(messages, False, **extra)
        except TemplateError:
            return False

    def _plain(self, messages: list[Message], prompt: bool) -> str:
        return _unmark(self._run(messages, prompt)).text


def _clean(value: Any) -> Any:
    """The text without our span markers: nobody's data may forge a span."""
    return value.translate(FORGED) if isinstance(value, str) and (OPEN in value or CLOSE in value) else value


def _unmark(marked: str) -> Rendered:
    """Take the span markers out of a rendered text and note where they stood."""
    if OPEN not in marked:
        return Rendered(marked, [])
    text = ""
    spans: list[tuple[int, int]] = []
    for part in marked.split(OPEN):
        inside, closed, after = part.partition(CLOSE)
        stop = len(text) + len(inside)
        if closed and spans and not text[spans[-1][1] :].strip():
            spans[-1] = (spans[-1][0], stop)  # one turn in several tags
        elif closed:
            spans.append((len(text), stop))
        text += inside + after
    return Rendered(text, spans)
