"""What ends an answer: the tokens that any program stops at, and texts of several tokens that only the chat looks for."""

from __future__ import annotations

import json
from typing import Any

from studio import model
from studio.talk.reference import ModelReference
from studio.tokens import Encoder


def end_tokens(voice: ModelReference, tokenizer: Any = None) -> list[int]:
    """Single tokens that end a turn: the template's end of turn first, then the tokenizer's and the model's own end."""
    tokenizer = tokenizer or Encoder(voice.tokenizer, voice.template).tokenizer
    named = [tokenizer.token_to_id(text) for text in (*voice.stop, voice.template.special.get("eos_token", ""))]
    file = voice.base / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for own in (settings.get("eos_token_id"), model.facts(voice.base).config.get("eos_token_id")):
        named += own if isinstance(own, list) else [own]
    return [token for token in dict.fromkeys(named) if token is not None]


def text_stops(voice: ModelReference, tokenizer: Any = None) -> tuple[str, ...]:
    """What ends a turn and is no single token."""
    tokenizer = tokenizer or Encoder(voice.tokenizer, voice.template).tokenizer
    return tuple(stop for stop in voice.stop if tokenizer.token_to_id(stop) is None)


def never_stops(voice: ModelReference) -> str:
    """A sentence where no single token ends the turns that were trained, or "": see Encoder.caution."""
    return Encoder(voice.tokenizer, voice.template).end_of_turn_warning()
