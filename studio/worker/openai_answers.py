"""Answers in OpenAI's shapes: chat completions with tool calls, and text completions, whole or streamed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from studio.text.call_marks import SAID, starts
from studio.text.tool_calls import names_of
from studio.text.written_calls import called, read_calls

Line = dict[str, Any]


class Shape(Protocol):
    """How the server writes one kind of answer."""

    def opening(self) -> list[Line]: ...
    def part(self, text: str, logprobs: list[Line]) -> list[Line]: ...
    def closing(self, finish: str, usage: Line | None) -> list[Line]: ...
    def whole(self, text: str, logprobs: list[Line], finish: str, usage: Line) -> Line: ...


class Chat:
    """A chat completion. tools: look for calls of these, and withhold text that may be the start of one."""

    def __init__(self, model: str, tools: Sequence[Line] = ()):
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "created": int(time.time()), "model": model}
        self.tools, self.pending, self.opens = tools, "", True

    def _line(self, delta: Line, finish: str | None = None, logprobs: list[Line] | None = None) -> Line:
        choice: Line = {"index": 0, "delta": delta, "finish_reason": finish}
        if logprobs:
            choice["logprobs"] = {"content": logprobs}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def opening(self) -> list[Line]:
        return [self._line({"role": "assistant", "content": ""})]

    def part(self, text: str, logprobs: list[Line]) -> list[Line]:
        if self.tools:
            self.pending += text
            start = starts(self.pending, self.opens)
            text, self.pending = self.pending[:start], self.pending[start:]
            self.opens = self.opens and not text.strip()
        return [self._line({"content": text}, logprobs=logprobs)] if text or logprobs else []

    def closing(self, finish: str, usage: Line | None) -> list[Line]:
        content, tool_calls = parse_calls(self.pending, self.tools, self.opens) if self.tools else ("", [])
        lines = [self._line({"content": content})] if content else []
        if tool_calls:
            indexed = [{"index": index, **tool_call} for index, tool_call in enumerate(tool_calls)]
            lines.append(self._line({"tool_calls": indexed}))
            finish = "tool_calls"
        lines.append(self._line({}, finish))
        if usage:
            lines.append({**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        return lines

    def whole(self, text: str, logprobs: list[Line], finish: str, usage: Line) -> Line:
        content, tool_calls = parse_calls(text, self.tools) if self.tools else (text, [])
        message: Line = {"role": "assistant", "content": content}
        if tool_calls:
            message |= {"tool_calls": tool_calls, "content": content or None}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if tool_calls else finish,
            "logprobs": {"content": logprobs} if logprobs else None,
        }
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage}


class Text:
    """A text completion."""

    def __init__(self, model: str):
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex[:24]}",
            "created": int(time.time()),
            "model": model,
            "object": "text_completion",
        }

    def _line(self, text: str, finish: str | None) -> Line:
        return {**self.head, "choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None}]}

    def opening(self) -> list[Line]:
        return []

    def part(self, text: str, logprobs: list[Line]) -> list[Line]:
        return [self._line(text, None)]

    def closing(self, finish: str, usage: Line | None) -> list[Line]:
        return [self._line("", finish)] + ([{**self.head, "choices": [], "usage": usage}] if usage else [])

    def whole(self, text: str, logprobs: list[Line], finish: str, usage: Line) -> Line:
        return self._line(text, finish) | {"usage": usage}


def parse_calls(text: str, tools: Sequence[Line] = (), opens: bool = True) -> tuple[str, list[Line]]:
    """(content, tool calls). With a call that is none of a function by name, the text is content.

    tools: those declared in the request; calls without a mark must be of these. opens: as in `starts`.
    """
    start = starts(text, opens)
    calls = read_calls(text[start:], tools)
    if not calls or not (SAID.match(text, start) or called(calls) <= set(names_of([*tools]))):
        return text, []
    return text[:start].rstrip(), [_openai_call(**call["function"]) for call in calls]


def _openai_call(name: str, arguments: Any) -> Line:
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": name, "arguments": written}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
