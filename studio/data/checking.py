"""check: whether an order's data can be read at all, before a run exists."""

from __future__ import annotations

from studio.data.order import DataOrder
from studio.data.reading import read


def check(order: DataOrder) -> None:
    """Read every source of the order (imports are kept, so the run does not read again). Raises DataError."""
    for source in order.sources():
        read(source.source, order.format, order.mapping).decide(order.problems)
    if isinstance(order.eval, str):
        read(order.eval, order.format, order.mapping)
