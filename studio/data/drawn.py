"""Tables drawn in text: Markdown's pipe tables, and those that psql, mysql and pandas print."""

from __future__ import annotations

import re
from collections.abc import Iterable

RULE_SIGNS = frozenset(" \t|+:-=\r\n")
EDGE = re.compile(r"(?<!\\)\|")
HEAD_LINES = 200


class DrawnReader:
    """The rows of a drawn table line by line, [] for a line that is none; the header comes with the rule below it.

    line_num: of the last line read. beside: the lines that stand in no table, or in one with another header.
    """

    def __init__(self, lines: Iterable[str]):
        self.lines, self.line_num = iter(lines), 0
        self.beside: list[str] = []
        self.header: list[str] | None = None
        self.above, self.inside = "", False

    def __iter__(self) -> DrawnReader:
        return self

    def __next__(self) -> list[str]:
        line = next(self.lines)
        self.line_num += 1
        if is_rule(line):
            return self._rule()
        if self.inside and EDGE.search(line):
            return cells_of(line)
        self.inside = False
        if self.above.strip():
            self.beside.append(self.above.strip())
        self.above = line
        return []

    def _rule(self) -> list[str]:
        header = cells_of(self.above) if not self.inside and EDGE.search(self.above) else []
        if not header or self.header not in (None, header):
            return []
        self.above, self.inside = "", True
        if self.header is not None:
            return []
        self.header = header
        return header

    def rest(self) -> list[str]:
        """What stands beside the table, once all lines are read."""
        return [*self.beside, *filter(None, [self.above.strip()])]


def is_rule(line: str) -> bool:
    """Whether a line is the rule below a header, such as |---|:-:|, or between rows, +----+----+."""
    return ("-" in line or "=" in line) and ("|" in line or "+" in line) and RULE_SIGNS.issuperset(line)


def cells_of(line: str) -> list[str]:
    """The cells of a row; a bar inside a cell is written \\|."""
    row = line.strip().removeprefix("|")
    if row.endswith("|") and not row.endswith("\\|"):
        row = row[:-1]
    return [cell.strip().replace("\\|", "|") for cell in EDGE.split(row)]


def drawn_header(text: str) -> list[str] | None:
    """The header of the table that a text is, from its beginning; None for other text, also for one around a table."""
    reader = DrawnReader(text.split("\n")[:HEAD_LINES])
    rows = [cells for cells in reader if cells][1:]
    return reader.header if rows and len(rows) >= len(reader.rest()) else None
