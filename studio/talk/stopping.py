"""What ends an answer: tokens that any program stops at, and texts of several tokens that only the chat looks for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio import model
from studio.base import generation
from studio.talk.reference import ModelReference
from studio.template import Template
from studio.tokens import Encoder


def end_tokens(reference: ModelReference, tokenizer: Any = None) -> list[int]:
    """Ids of the tokens that end a model's turn, the trained one first."""
    tokenizer = tokenizer or Encoder(reference.tokenizer, reference.template).tokenizer
    return end_token_ids(tokenizer, reference.stop, reference.template, reference.base)


def end_token_ids(tokenizer: Any, stop: Iterable[str], template: Template, base: Path) -> list[int]:
    """Ids of the stop texts that are single tokens, then of the tokenizer's and the base's own end tokens."""
    ids = [tokenizer.token_to_id(text) for text in (*stop, template.special.get("eos_token", ""))]
    for settings in (generation.settings(base), model.facts(base).config):
        ids += generation.end_ids(settings)
    return [token for token in dict.fromkeys(ids) if token is not None]


def text_stops(reference: ModelReference, tokenizer: Any = None) -> tuple[str, ...]:
    """The stop texts that are no single token."""
    tokenizer = tokenizer or Encoder(reference.tokenizer, reference.template).tokenizer
    return tuple(stop for stop in reference.stop if tokenizer.token_to_id(stop) is None)


def never_stops(reference: ModelReference) -> str:
    """A warning where no single token ends the trained turns, else "" (see Encoder.caution)."""
    return Encoder(reference.tokenizer, reference.template).end_of_turn_warning()
