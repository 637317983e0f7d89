"""The prompts that a stage answers itself: each row's question, with the row's own answer as what is known of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from studio.data.dataset import Dataset
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.errors import DataError, TemplateError
from studio.evaluation.questions import question
from studio.kernels import IGNORE_INDEX
from studio.reward import Asked
from studio.tokens import Encoded, Encoder

LOOKED_AT = 1000  # rows, for an answer to compare with
FORMAT = "prompts"


def read_for(order: DataOrder, source: str) -> Dataset:
    """A source of an order, read as its stage needs it: where that writes answers itself, prompts alone are rows too.

    Raises DataError.
    """
    try:
        dataset = read(source, order.format, order.mapping, encoding=order.encoding)
        if len(dataset.conversations) or not _takes_prompts(order):
            return dataset
    except DataError:
        if not _takes_prompts(order):
            raise
        with suppress(DataError):
            return read(source, FORMAT, encoding=order.encoding)
        raise
    return read(source, FORMAT, encoding=order.encoding)


def _takes_prompts(order: DataOrder) -> bool:
    return order.examples == "prompts" and order.format == "auto" and not order.mapping


def asked_of(conversation: dict[str, Any]) -> Asked | None:
    """The question of a row, and its own answer; None for plain text."""
    found = question(conversation, last=True)
    if found is not None:
        return Asked(found.text, found.messages, found.reference)
    messages = conversation.get("messages") or []
    if not messages or messages[-1]["role"] == "assistant":
        return None
    text = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return Asked(text, messages, conversation.get("reference") or "")


def encode_prompt(conversation: dict[str, Any], encoder: Encoder) -> Encoded | TemplateError:
    """A row's prompt, up to the opening of the answer, without labels; TemplateError where there is none."""
    asked = asked_of(conversation)
    if asked is None:
        return TemplateError("The row holds no question.", "Give rows with a question each.", "data.train")
    try:
        tools = conversation.get("tools")
        ids = encoder.prompt_ids(asked.messages, **({"tools": tools} if tools else {}))
    except TemplateError as error:
        return error
    overflow = max(0, len(ids) - encoder.max_length) if encoder.max_length else 0
    return Encoded(
        ids, [IGNORE_INDEX] * len(ids), "", [], overflow, len(ids), question=json.dumps(asked._asdict(), default=str)
    )


def check_references(order: DataOrder, rewards: list[str]) -> None:
    """Raise DataError where rewards compare with an answer and no row has one. rewards: what they are called."""
    for source in order.sources():
        rows = read_for(order, source.source).conversations.batch(0, LOOKED_AT)
        if not any((asked := asked_of(row)) is not None and asked.reference for row in rows):
            raise DataError(
                f"The reward {rewards[0]} compares with the row's own answer, and the rows of {source.source} have "
                "none.",
                "Add a column with the right answer, such as reference, or take rewards that need none.",
                "stage.rewards",
            )
