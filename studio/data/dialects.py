"""Tables in text: of CSV the delimiter, how quotes are escaped and where the header is; and tables drawn with bars."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from studio.data.formats import formats

RULE_SIGNS = frozenset(" \t|+:-=\r\n")
EDGE = re.compile(r"(?<!\\)\|")
HEAD_LINES = 200
DELIMITERS = (",", ";", "|", "\t")
HEAD_CHARACTERS = 65_536  # characters
SAMPLE_ROWS, MAX_ABOVE = 24, 8  # rows looked at, rows that may stand above the header


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


@dataclass(frozen=True)
class Dialect:
    """How cells are parted. escape: a quotation mark in a cell is written \\" ; spaces: blanks follow the separator.

    above: rows before the header, such as a title, or Excel's note of the separator. quote: what stands around cells.
    drawn: the table is drawn with bars and rules, as in Markdown.
    """

    delimiter: str = ","
    escape: bool = False
    spaces: bool = False
    above: int = 0
    quote: str = '"'
    drawn: bool = False

    def reader(self, lines: Iterator[str]) -> Any:
        """A reader of rows: csv's own, which raises csv.Error at a misplaced quotation mark, or of drawn tables."""
        if self.drawn:
            return DrawnReader(lines)
        escape = "\\" if self.escape else None
        options = {"delimiter": self.delimiter, "quotechar": self.quote, "escapechar": escape, "strict": True}
        return csv.reader(lines, skipinitialspace=self.spaces, **options)


def dialect_of(text: str, named: bool = False) -> Dialect | None:
    """The dialect of a table, from its beginning; None for other text. named: the file name ends in .csv or .tsv."""
    text = text[:HEAD_CHARACTERS]
    excel_note = re.match(r"sep=(.)\r?\n", text)  # Excel's
    if excel_note:
        quoting = _quoting(text[excel_note.end() :], excel_note[1])
        return replace(quoting, above=1)
    if drawn_header(text):
        return Dialect("|", drawn=True)
    best: tuple[int, Dialect] | None = None
    tabbed = _is_tabbed(text)
    delimiters = ("\t",) if tabbed else DELIMITERS
    for delimiter in delimiters:
        dialect = _quoting(text, delimiter)
        header = _header_among(_rows(text, dialect))
        if header.score and (best is None or header.score > best[0]):
            best = header.score, replace(dialect, above=header.above)
    if best is None and (named or tabbed):
        delimiter = max(delimiters, key=lambda sign: text.partition("\n")[0].count(sign))
        return _quoting(text, delimiter)
    return best[1] if best else None


def _is_tabbed(text: str) -> bool:
    """Whether every line holds the same number of cells, parted by tabs and none of them empty."""
    rows = [line.split("\t") for line in text.splitlines()[:SAMPLE_ROWS] if line.strip()]
    return len(rows) > 2 and len(set(map(len, rows))) == 1 < len(rows[0]) and all(map(str.strip, chain(*rows)))


class Header(NamedTuple):
    """above: filled rows before it. hits: names of it that are known. score: how sure it is; 0 for not at all."""

    above: int = 0
    hits: int = 0
    score: int = 0


def header_of(rows: list[list[Any]]) -> Header:
    """The header of a sheet."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows[: 10 * SAMPLE_ROWS]]
    return _header_among([row for row in texts if any(row)][:SAMPLE_ROWS])


def _quoting(text: str, delimiter: str) -> Dialect:
    """The way of quoting that the text follows furthest without a fault; the plain one where several do."""
    quote = "'" if _is_single_quoted(text, delimiter) else '"'
    ways = [Dialect(delimiter, escape, spaces, 0, quote) for escape in (False, True) for spaces in (False, True)]
    read = {way: _rows(text, way) for way in ways}
    late = re.compile(r'\s+("|\S)')  # quoted, or begun, but not from its first sign on
    return max(
        ways, key=lambda way: (len(read[way]), -sum(late.match(cell) is not None for row in read[way] for cell in row))
    )


def _is_single_quoted(text: str, delimiter: str) -> bool:
    """Whether cells stand in '…': a whole one in at least half of the lines, and none in "…"."""
    edge = re.escape(delimiter)
    if re.search(rf'(?m)(?:^|{edge})\s*"', text):
        return False
    lines = [line for line in text.split("\n")[1:] if line.strip()]
    quoted = sum(re.search(rf"(?:^|{edge})\s*'(?:[^']|'')*'\s*(?:{edge}|$)", line) is not None for line in lines)
    return quoted > 0 and quoted * 2 >= len(lines)


def _rows(text: str, dialect: Dialect) -> list[list[str]]:
    """The first rows, up to the first fault."""
    rows: list[list[str]] = []
    reader = dialect.reader(iter(io.StringIO(text, newline="")))
    try:
        for row in reader:
            if any(row):
                rows.append(row)
            if len(rows) > SAMPLE_ROWS:
                break
    except csv.Error:
        return rows
    return rows[:-1] if len(text) >= HEAD_CHARACTERS and 2 < len(rows) <= SAMPLE_ROWS else rows


def _header_among(rows: list[list[str]]) -> Header:
    """The header among the first rows of what may be a table: the one with the most known names."""
    found = []
    for above, row in enumerate(rows[:MAX_ABOVE]):
        names = _names(row)
        hits = sum(name.lower() in known_columns() for name in names)
        below = rows[above + 1 :]
        named = hits and _are_names(names) and (not above or (len(names) > 1 and below))
        if named and all(len(set(_names(r))) < len(names) or r[0].lstrip().startswith("#") for r in rows[:above]):
            found.append(Header(above, hits, hits * 10 + len(names)))
    best = max(found, key=lambda header: header.hits, default=Header())
    if best.hits < 2 and not best.above and _is_group_row(rows):
        return Header(1, 0, len(rows[1]))
    if found or not rows:
        return best
    names = rows[0]
    same = sum(len(row) == len(names) for row in rows[1:])
    named = len(names) > 1 and all(name.strip() for name in names[1:]) and _are_names(_names(names))
    return Header(0, 0, len(names)) if named and len(rows) > 2 and same == len(rows) - 1 else Header()


def _is_group_row(rows: list[list[str]]) -> bool:
    """Whether the first row names groups of columns, as merged cells above a header do: Dialogue,,Meta"""
    if len(rows) < 3 or len({len(row) for row in rows}) > 1:
        return False
    groups, names, *below = map(_names, rows)
    filled = len(names) == len(rows[1]) > len(set(groups)) > 0
    return filled and bool(rows[0][0].strip()) and _are_names(names) and not any(map(_are_names, below))


def _names(row: list[str]) -> list[str]:
    """The cells that name a column; pandas leaves the name of its index empty."""
    return [cell.strip().lstrip("\ufeff") for cell in row if cell.strip()]


def _are_names(cells: list[str]) -> bool:
    return len(set(cells)) == len(cells) and all(
        len(cell) < 40 and not cell.endswith((".", "?", "!")) for cell in cells
    )


@lru_cache(maxsize=1)
def known_columns() -> frozenset[str]:
    """The names of columns that a format knows."""
    names = {name for form in formats().values() for part in form.COLUMNS.values() for name in part}
    return frozenset(names | {"chosen", "rejected", "label", "role"})
