"""The prompts that a stage answers itself: each row's question, with the row's own answer as what is known of it."""

from __future__ import annotations

import json
from typing import Any

from studio.errors import TemplateError
from studio.evaluation.questions import Question, question
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoded, Encoder


def asked_of(conversation: dict[str, Any]) -> Question | None:
    """The question of a row, and its own answer; None for plain text."""
    found = question(conversation, last=True)
    if found is not None:
        return found._replace(reference=conversation.get("reference") or found.reference)
    messages = conversation.get("messages") or []
    if not messages or messages[-1]["role"] == "assistant":
        return None
    text = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return Question(text, messages, conversation.get("reference") or "", conversation.get("tools") or None)


def encode_prompt(conversation: dict[str, Any], encoder: Encoder) -> Encoded | TemplateError:
    """A row's prompt, up to the opening of the answer, without labels; TemplateError where there is none."""
    asked = asked_of(conversation)
    if asked is None:
        return TemplateError("The row holds no question.", "Give rows with a question each.", "data.train")
    try:
        ids = encoder.prompt_ids(asked.messages, **asked.variables)
    except TemplateError as error:
        return error
    overflow = max(0, len(ids) - encoder.max_length) if encoder.max_length else 0
    return Encoded(
        ids, [IGNORE_INDEX] * len(ids), "", [], overflow, len(ids), question=json.dumps(asked._asdict(), default=str)
    )
