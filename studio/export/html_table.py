"""A table of a run's report."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """HTML; every cell is escaped. No head: a table of names and values."""
    lines = [_row(head, "th"), *(_row(row, "td") for row in rows)]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _row(cells: Iterable[Any], tag: str) -> str:
    line = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
    return f"<tr>{line}</tr>" if line else ""
