"""A table of a run's report."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

SHORT = 16  # characters of a cell that is kept on one line


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """HTML; every cell is escaped. No head: a table of names and values."""
    lines = [_row(head, "th"), *(_row(row, "td") for row in rows)]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _row(cells: Iterable[Any], tag: str) -> str:
    written = [html.escape(str(cell)) for cell in cells]
    line = "".join(
        f"<{tag}{' class=short' if tag == 'td' and len(text) <= SHORT else ''}>{text}</{tag}>" for text in written
    )
    return f"<tr>{line}</tr>" if line else ""
