"""Dialects of CSV: the delimiter, how quotes inside a cell are escaped, and the line of the header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from studio.data.formats import formats

DELIMITERS = (",", ";", "|", "\t")
HEAD_CHARACTERS = 65_536  # characters
SAMPLE_ROWS, MAX_ABOVE = 24, 8  # rows looked at, rows that may stand above the header


@dataclass(frozen=True)
class Dialect:
    """How cells are parted. escape: a quotation mark in a cell is written \\" ; spaces: blanks follow the separator.

    above: rows before the header, such as a title, or Excel's note of the separator. quote: what stands around cells.
    """

    delimiter: str = ","
    escape: bool = False
    spaces: bool = False
    above: int = 0
    quote: str = '"'

    def reader(self, lines: Iterator[str]) -> csv.reader:  # type: ignore[valid-type]
        """csv's own reader; it raises csv.Error where a quotation mark stands where none may."""
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
    best: tuple[int, Dialect] | None = None
    for delimiter in DELIMITERS:
        dialect = _quoting(text, delimiter)
        score, above = _score(_rows(text, dialect))
        if score and (best is None or score > best[0]):
            best = score, replace(dialect, above=above)
    if best is None and named:
        delimiter = max(DELIMITERS, key=lambda sign: text.partition("\n")[0].count(sign))
        return _quoting(text, delimiter)
    return best[1] if best else None


def above_header(rows: list[list[object]]) -> int:
    """The number of filled rows above the header of a sheet."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    return _score([row for row in texts if any(row)][:SAMPLE_ROWS])[1]


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


def _score(rows: list[list[str]]) -> tuple[int, int]:
    """(how sure it is that these are the rows of a table, 0 for not at all; rows above its header)."""
    if not rows:
        return 0, 0
    for above, row in enumerate(rows[:MAX_ABOVE]):
        header = _header(row)
        hits = sum(cell.lower() in _known_columns() for cell in header)
        below = rows[above + 1 :]
        narrower = all(len(_header(r)) < len(header) for r in rows[:above])
        if header and hits and _are_names(header) and (not above or (len(header) > 1 and narrower and below)):
            return hits * 10 + len(header), above
    header = [cell.strip() for cell in rows[0]]
    same = sum(len(row) == len(header) for row in rows[1:])
    plain = (
        len(header) > 1 and all(header[1:]) and _are_names(_header(rows[0])) and len(rows) > 2 and same == len(rows) - 1
    )
    return (len(header), 0) if plain else (0, 0)


def _header(row: list[str]) -> list[str]:
    """The cells that name a column; pandas leaves the name of its index empty."""
    return [cell.strip().lstrip("\ufeff") for cell in row if cell.strip()]


def _are_names(cells: list[str]) -> bool:
    return len(set(cells)) == len(cells) and all(
        len(cell) < 40 and not cell.endswith((".", "?", "!")) for cell in cells
    )


@lru_cache(maxsize=1)
def _known_columns() -> frozenset[str]:
    names = {name for form in formats().values() for part in form.COLUMNS.values() for name in part}
    return frozenset(names | {"chosen", "rejected", "label", "role"})
