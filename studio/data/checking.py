"""check: whether an order's data can be read, and its template trains the right tokens, before a run exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studio.data.dataset import Conversations
from studio.data.encoding import check_context_length
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.data.splitting import characters
from studio.tokens import Encoded, Encoder

GATED = 50  # rows of each source that are looked at


def check(order: DataOrder, model_folder: Path | None = None, num_virtual_tokens: int = 0) -> None:
    """Read every source of the order (imports are kept, so the run does not read again); with a model's folder, pass the gate too.

    num_virtual_tokens: tokens that the method puts before every row. Raises DataError and TemplateError.
    """
    read_all = [read(source.source, order.format, order.mapping, encoding=order.encoding) for source in order.sources()]
    chosen = [one.decide(order.problems).conversations for one in read_all]
    if isinstance(order.eval, str):
        read(order.eval, order.format, order.mapping, encoding=order.encoding)
    if model_folder is None:
        return
    encoder = Encoder.from_order(order, model_folder, num_virtual_tokens=num_virtual_tokens)
    for one, conversations in zip(read_all, chosen, strict=True):
        encoder.check_template(conversations[:GATED])
        if encoder.context_limit is not None and encoder.context_limit < order.max_length:
            _refuse_too_long(one.source, conversations, encoder)


def _refuse_too_long(source: str, conversations: Conversations, encoder: Encoder) -> None:
    """Look at the rows with the most characters: the trainer looks at all."""
    longest = np.argsort(-conversations.sizes(characters), kind="stable")[:GATED]
    rows = list(conversations.take(longest))
    for conversation, e in zip(rows, encoder.encode_each(rows), strict=True):
        if isinstance(e, Encoded):
            check_context_length(conversation, e, encoder, source)
