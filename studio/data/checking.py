"""check: whether an order's data can be read, and its template trains the right tokens, before a run exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studio.data.dataset import Conversations
from studio.data.encoding import refuse_beyond
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.data.splitting import characters
from studio.tokens import Encoded, Encoder

GATED = 50  # rows of each source that are looked at


def check(order: DataOrder, model_folder: Path | None = None, virtual: int = 0) -> None:
    """Read every source of the order (imports are kept, so the run does not read again); with a model's folder, pass the gate too.

    virtual: tokens that the method puts before every row. Raises DataError and TemplateError.
    """
    read_all = [read(source.source, order.format, order.mapping, encoding=order.encoding) for source in order.sources()]
    chosen = [one.decide(order.problems).conversations for one in read_all]
    if isinstance(order.eval, str):
        read(order.eval, order.format, order.mapping, encoding=order.encoding)
    if model_folder is None:
        return
    encoder = Encoder.of(order, model_folder, virtual=virtual)
    for one, conversations in zip(read_all, chosen, strict=True):
        encoder.gate(conversations[:GATED])
        if encoder.context is not None and encoder.context < order.max_length:
            _refuse_too_long(one.source, conversations, encoder)


def _refuse_too_long(source: str, conversations: Conversations, encoder: Encoder) -> None:
    """Look at the rows with the most characters: the trainer looks at all."""
    longest = np.argsort(-conversations.sizes(characters), kind="stable")[:GATED]
    rows = list(conversations.take(longest))
    for conversation, e in zip(rows, encoder.encode_each(rows), strict=True):
        if isinstance(e, Encoded):
            refuse_beyond(conversation, e, encoder, source)
