"""Questions of held-out conversations: what is asked, and the answer that the data gives."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any, NamedTuple


class Question(NamedTuple):
    """text: of the last turn, as it is shown; messages: all of it; reference: the answer in the data, or ""."""

    text: str
    messages: list[dict[str, Any]]
    reference: str = ""
    tools: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What a template is given beside the messages."""
        return {"tools": self.tools} if self.tools else {}


def question(row: dict[str, Any], last: bool = False) -> Question | None:
    """What stands before a conversation's first answer with text (last: its last one); None for plain text."""
    messages = row.get("messages") or []
    indices = [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and index and isinstance(message.get("content"), str) and message["content"]
    ]
    indices = [index for index in indices if messages[index - 1]["role"] != "assistant"]
    if not indices:
        return None
    index = indices[-1] if last else indices[0]
    asked = messages[:index]
    text = next((message.get("content") for message in reversed(asked) if message["role"] == "user"), None)
    shown = text if isinstance(text, str) else str(asked[-1].get("content") or "")
    return Question(shown, asked, messages[index]["content"], row.get("tools") or None)


def distinct(rows: Iterable[dict[str, Any]], count: int, last: bool = False) -> list[Question]:
    """The first `count` questions that differ."""
    questions: dict[str, Question] = {}
    for row in rows:
        if (asked := question(row, last)) is not None:
            questions.setdefault(json.dumps(asked.messages, sort_keys=True, default=str), asked)
        if len(questions) >= count:
            break
    return list(questions.values())


def spread(count: int, most: int, seed: int = 0) -> list[int]:
    """At most `most` of `count` places, evenly drawn, ordered so that any first part is a fair sample."""
    return random.Random(seed).sample(range(count), min(count, most))
