"""check: whether an order's data can be read, and its template trains the right tokens, before a run exists."""

from __future__ import annotations

from pathlib import Path

from studio.data.order import DataOrder
from studio.data.reading import read
from studio.tokens import Encoder

GATED = 50  # rows of each source that are looked at


def check(order: DataOrder, model_folder: Path | None = None) -> None:
    """Read every source of the order (imports are kept, so the run does not read again); with a model's folder, pass the gate too.

    Raises DataError and TemplateError.
    """
    chosen = [read(source.source, order.format, order.mapping, encoding=order.encoding).decide(order.problems) for source in order.sources()]
    if isinstance(order.eval, str):
        read(order.eval, order.format, order.mapping, encoding=order.encoding)
    if model_folder is not None:
        encoder = Encoder.of(order, model_folder)
        for one in chosen:
            encoder.gate(one.conversations[:GATED])
