"""check(): whether an order's data can be read and its template trains the right tokens, before a run exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studio import template_check
from studio.data.dataset import Conversations, is_text_beside
from studio.data.encoding import check_context_length
from studio.data.examples import encode_examples, refuse_indifferent, refuse_other_examples
from studio.data.order import DataOrder
from studio.data.reading import read_eval, read_for
from studio.data.splitting import characters
from studio.errors import DataError
from studio.tokens import Encoded, Encoder

GATE_ROWS = 50  # rows of each source that are looked at


def check(order: DataOrder, model_folder: Path | None = None, num_virtual_tokens: int = 0) -> None:
    """Read every source of the order; with a model's folder, check template and labels of the first rows too.

    What was read is stored, so the run does not read it again.

    num_virtual_tokens: tokens that the method puts before every row. Raises DataError and TemplateError.
    """
    datasets = [read_for(order, source.source) for source in order.sources()]
    chosen = [dataset.decide(order.problems).conversations for dataset in datasets]
    for dataset in datasets:
        refuse_other_examples(dataset, order.examples)
    refuse_indifferent(chosen, order)
    read_eval(order)
    if model_folder is None:
        return
    encoder = Encoder.from_order(order, model_folder, num_virtual_tokens=num_virtual_tokens)
    for dataset, conversations in zip(datasets, chosen, strict=True):
        checked = order.examples != "prompts" and not is_text_beside(dataset, datasets)
        template_check.check(encoder, conversations[:GATE_ROWS] if checked else [])
        _refuse_too_long(conversations, encoder, order, dataset.source)
        if encoder.context_limit is not None and encoder.context_limit < order.max_length:
            # the rows with the most characters; the trainer checks all
            longest = np.argsort(-conversations.sizes(characters), kind="stable")[:GATE_ROWS]
            rows = list(conversations.take(longest))
            for conversation, encoded in zip(rows, encode_examples(rows, encoder, order.examples), strict=True):
                is_dropped = isinstance(encoded, Encoded) and encoded.overflow and encoder.too_long == "drop"
                if isinstance(encoded, Encoded) and not is_dropped:
                    check_context_length(conversation, encoded, encoder, dataset.source)


def _refuse_too_long(conversations: Conversations, encoder: Encoder, order: DataOrder, source: str) -> None:
    """Raise DataError where rows over the limit are dropped, and all are. Of many rows the shortest are looked at, and
    must be twice as long: characters tell tokens only about.
    """
    limit = encoder.max_length
    if encoder.too_long != "drop" or not limit or not len(conversations):
        return
    shortest = np.argsort(conversations.sizes(characters), kind="stable")[:GATE_ROWS]
    rows = list(conversations.take(np.sort(shortest)))
    encoded = [each for each in encode_examples(rows, encoder, order.examples) if isinstance(each, Encoded)]
    least = min((each.overflow for each in encoded), default=0)
    if least > (limit if len(conversations) > GATE_ROWS else 0):
        message = f"Every row of {source} has more than {limit} tokens (data.max_length), and such rows are left out."
        hint = f"Set data.max_length to {limit + least} or more."
        raise DataError(message, hint, "data.max_length")
