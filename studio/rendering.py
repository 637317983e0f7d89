"""Conversations as training text: a template's output with the spans that are trained and those that never are.

The template alone does not decide this: reasoning, tool calls and untrained turns are checked against what it wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from studio.errors import TemplateError
from studio.template import REASONING, Message, Rendered, Template
from studio.text import tool_calls

Reasoning = Literal["auto", "keep", "drop", "mask_empty"]
Conversation = list[Message] | dict[str, Any] | str
Span = tuple[int, int]

REASONING_BLOCK = re.compile(r"<think>\n?(.*?)\n?</think>\s*", re.DOTALL)
EMPTY_REASONING = re.compile(r"\s*(?:<((?:\w+:)?think\w*)>\s*</\1>|◁think▷\s*◁/think▷)\s*")
REASONING_CLOSE = re.compile(r"\s*</((?:\w+:)?think\w*)>\s*")  # of a block that the prompt has opened


@dataclass(frozen=True)
class Renderer:
    """Renders conversations with one template. bos: the token that the tokenizer puts before every text, or "".

    reasoning: see DataOrder.reasoning. "keep" refuses rows where the template cannot write it; "drop" removes it;
    "mask_empty" does not train the empty block that some templates write; "auto" is mask_empty for added blocks only.
    """

    template: Template
    reasoning: Reasoning = "auto"
    bos: str = ""

    def render(self, conversation: Conversation, **variables: Any) -> Rendered:
        """The text of a conversation with its trained spans. Raises TemplateError where a tool call would be lost."""
        if isinstance(conversation, dict) and "text" in conversation:
            conversation = conversation["text"]
        if isinstance(conversation, str):
            return self._plain_text(conversation)
        if isinstance(conversation, dict):
            if isinstance(conversation.get("tools"), list):
                variables = {"tools": conversation["tools"], **variables}
            conversation = conversation["messages"]
        messages, left_out = self._with_reasoning(conversation)
        rendered = self._with_tool_calls(messages, **variables)
        answers = [message for message in messages if message["role"] == "assistant"]
        spans = rendered.spans if len(rendered.spans) == len(answers) else None
        if self._loses_reasoning(answers, rendered, spans):
            left_out.add("reasoning_dropped")
        tools = variables.get("tools")
        if tools and any(name not in rendered.text for name in tool_calls.names_of(tools)):
            left_out.add("tools_dropped")
        masked_spans = self._masked_spans(answers, rendered.text, spans)
        trained = rendered.spans
        if spans is not None:  # a span begins behind what is masked at its beginning
            trained = [
                (max([start, *(end for begin, end in masked_spans if begin == start)]), stop) for start, stop in spans
            ]
        return replace(rendered, spans=trained, masked_spans=masked_spans, left_out=tuple(sorted(left_out)))

    def prompt(self, messages: list[Message], **variables: Any) -> str:
        """The conversation so far and the opening of the assistant's turn. Raises TemplateError."""
        attempts = [
            self._try_render(variant, add_generation_prompt=True, **variables)
            for variant in argument_variants(messages)
        ]
        texts = [attempt.text for attempt in attempts if isinstance(attempt, Rendered)]
        if not texts:
            raise attempts[0]
        calling = [message for message in messages if message.get("tool_calls")]
        complete = (text for text in texts if not any(tool_calls.missing(message, text) for message in calling))
        return next(complete, texts[0])

    def _plain_text(self, text: str) -> Rendered:
        """A text without turns, all of it trained, with the tokenizer's beginning and end."""
        bos = "" if text.startswith(self.bos) else self.bos
        text = bos + text + self.template.special.get("eos_token", "")
        return Rendered(text, [(0, len(text))])

    def _try_render(self, messages: list[Message], **variables: Any) -> Rendered | TemplateError:
        try:
            return self.template.render(messages, **variables)
        except TemplateError as error:
            return error

    def _with_tool_calls(self, messages: list[Message], **variables: Any) -> Rendered:
        """The rendered messages with every tool call whole in its turn, its arguments as the template takes them."""
        if not any("tool_calls" in message for message in messages):
            return self.template.render(messages, **variables)
        attempts = [self._try_render(variant, **variables) for variant in argument_variants(messages)]
        lost = ""
        for attempt in attempts:
            if isinstance(attempt, Rendered):
                missing = _missing_calls(messages, attempt)
                if not missing:
                    return attempt
                lost = lost or missing
        if not lost:
            raise attempts[0]
        raise TemplateError(
            f"The template {self.template.name!r} leaves out the calls of tools: {lost}.",
            "Choose one that writes them, such as chatml or qwen3.",
            "data.template",
        )

    def _with_reasoning(self, messages: list[Message]) -> tuple[list[Message], set[str]]:
        """The messages with their reasoning where the template takes it, and what had to be left out."""
        if not any(
            "reasoning_content" in message or (message["role"] == "assistant" and "</think>" in message["content"])
            for message in messages
        ):
            return messages, set()
        prepared, left_out, key = [], set(), self.template.reasoning_key
        for message in messages:
            reasoning = message.get("reasoning_content")
            rest = {name: value for name, value in message.items() if name != "reasoning_content"}
            if self.reasoning == "drop":
                if message["role"] == "assistant":
                    rest["content"] = REASONING_BLOCK.sub("", message["content"])
                if reasoning or rest["content"] != message["content"]:
                    left_out.add("reasoning_dropped")
            elif reasoning and key:
                rest[key] = reasoning
            elif reasoning and self.reasoning == "keep":
                rest["content"] = f"<think>\n{reasoning.strip()}\n</think>\n\n{message['content']}"
            elif reasoning:
                left_out.add("reasoning_dropped")
            prepared.append(rest)
        return prepared, left_out

    def _loses_reasoning(self, answers: list[Message], rendered: Rendered, spans: list[Span] | None) -> bool:
        """Whether the template left out reasoning that it was given. Raises TemplateError where it is to be kept."""
        for n, message in enumerate(answers):
            given = (message[key] for key in REASONING if isinstance(message.get(key), str))
            inline = REASONING_BLOCK.search(message["content"])
            reasoning = (next(given, None) or (inline.group(1) if inline else "")).strip()
            turn = rendered.text[slice(*spans[n])] if spans else rendered.text
            if reasoning not in turn:
                if self.reasoning == "keep":
                    raise TemplateError(
                        f"The template {self.template.name!r} leaves out the reasoning of answer {n + 1}.",
                        "Choose one that keeps the reasoning of every turn, such as qwen3, "
                        "or set data.reasoning to auto.",
                        "data.template",
                    )
                return True
        return False

    def _masked_spans(self, answers: list[Message], text: str, spans: list[Span] | None) -> list[Span]:
        """What is never trained: turns of weight 0, and blocks of reasoning that the template wrote empty."""
        if spans is None:
            if any(message.get("weight") == 0 or message.get("untrained") for message in answers):
                raise TemplateError(
                    f"With the template {self.template.name!r} answers cannot be told apart, "
                    "and some of them are not to be trained.",
                    "Choose another template, such as chatml.",
                    "data.template",
                )
            return []
        masked = []
        for message, (start, stop) in zip(answers, spans, strict=True):
            if message.get("weight") == 0:
                masked.append((start, stop))
                continue
            masked += self._untrained_parts(message, text, start, stop)
            if self.reasoning != "keep":
                block_end = _empty_reasoning_end(text, start, stop)
                from_template = not EMPTY_REASONING.match(message["content"])
                if block_end > start and (self.reasoning == "mask_empty" or from_template):
                    masked.append((start, block_end))
        return masked

    def _untrained_parts(self, message: Message, text: str, start: int, stop: int) -> list[Span]:
        """The untrained parts of an answer, as spans of `text`. Raises TemplateError where it is written otherwise."""
        if not message.get("untrained"):
            return []
        content = message["content"]
        indent = len(content) - len(content.lstrip())
        offset = text.find(content.strip(), start, stop)
        if offset < 0:
            raise TemplateError(
                f"The template {self.template.name!r} writes an answer otherwise than the data, "
                "and parts of it are not to be trained.",
                "Choose another template, such as chatml.",
                "data.template",
            )
        return [(max(offset + a - indent, offset), offset + b - indent) for a, b in message["untrained"]]


def _empty_reasoning_end(text: str, start: int, stop: int) -> int:
    """Where an empty block of reasoning ends at the beginning of a turn (the prompt may open it); else `start`."""
    if block := EMPTY_REASONING.match(text, start, stop):
        return block.end()
    close = REASONING_CLOSE.match(text, start, stop)
    if close and text[max(0, start - 40) : start].rstrip().endswith(f"<{close[1]}>"):
        return close.end()
    return start


def argument_variants(messages: list[Message]) -> list[list[Message]]:
    """The messages as they are, and with call arguments as objects and as JSON text: templates differ in this."""
    if not any(message.get("tool_calls") for message in messages):
        return [messages]
    variants = [
        messages,
        tool_calls.with_arguments(messages, as_text=False),
        tool_calls.with_arguments(messages, as_text=True),
    ]
    return [variant for n, variant in enumerate(variants) if variant not in variants[:n]]


def _missing_calls(messages: list[Message], rendered: Rendered) -> str:
    """What of the calls does not stand in the trained span of its own turn; "" when all do."""
    answers = [message for message in messages if message["role"] == "assistant"]
    turns = [rendered.text[start:stop] for start, stop in rendered.spans]
    if len(turns) != len(answers):  # the template marks answers otherwise than one by one
        turns = [" ".join(turns)] * len(answers)
    for message, turn in zip(answers, turns, strict=True):
        if message.get("tool_calls") and (lost := tool_calls.missing(message, turn)):
            return lost
    return ""
