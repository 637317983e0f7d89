"""Answers in OpenAI's shapes: a chat completion with its calls of tools, and a completion; whole, or in parts as they are written."""

from __future__ import annotations

import time
import uuid
from typing import Any, Protocol

from studio.worker.calls import begins, calls

Line = dict[str, Any]


class Shape(Protocol):
    """What a server needs of a kind of answer."""

    def opening(self) -> list[Line]: ...
    def part(self, text: str, odds: list[Line]) -> list[Line]: ...
    def closing(self, finish: str, usage: Line | None) -> list[Line]: ...
    def whole(self, text: str, odds: list[Line], finish: str, usage: Line) -> Line: ...


class Chat:
    """calls: whether calls of tools are looked for; what may be one is then held back until it is known."""

    def __init__(self, model: str, calls: bool):
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "created": int(time.time()), "model": model}
        self.calls, self.held = calls, ""

    def _line(self, delta: Line, finish: str | None = None, odds: list[Line] | None = None) -> Line:
        choice = {"index": 0, "delta": delta, "finish_reason": finish} | (
            {"logprobs": {"content": odds}} if odds else {}
        )
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def opening(self) -> list[Line]:
        return [self._line({"role": "assistant", "content": ""})]

    def part(self, text: str, odds: list[Line]) -> list[Line]:
        if self.calls:
            self.held += text
            at = begins(self.held)
            text, self.held = self.held[:at], self.held[at:]
        return [self._line({"content": text}, odds=odds)] if text or odds else []

    def closing(self, finish: str, usage: Line | None) -> list[Line]:
        content, found = calls(self.held) if self.calls else ("", [])
        lines = [self._line({"content": content})] if content else []
        if found:
            lines.append(self._line({"tool_calls": [{"index": place, **one} for place, one in enumerate(found)]}))
            finish = "tool_calls"
        lines.append(self._line({}, finish))
        return lines + (
            [{**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage}] if usage else []
        )

    def whole(self, text: str, odds: list[Line], finish: str, usage: Line) -> Line:
        content, found = calls(text) if self.calls else (text, [])
        message: Line = {"role": "assistant", "content": content} | (
            {"tool_calls": found, "content": content or None} if found else {}
        )
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if found else finish,
            "logprobs": {"content": odds} if odds else None,
        }
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage}


class Text:
    """A completion."""

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

    def part(self, text: str, odds: list[Line]) -> list[Line]:
        return [self._line(text, None)]

    def closing(self, finish: str, usage: Line | None) -> list[Line]:
        return [self._line("", finish)] + ([{**self.head, "choices": [], "usage": usage}] if usage else [])

    def whole(self, text: str, odds: list[Line], finish: str, usage: Line) -> Line:
        return self._line(text, finish) | {"usage": usage}
