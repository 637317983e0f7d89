"""Rows from tables of cells: CSV and TSV, tables drawn in text. Those of Excel: sheets.py; of Arrow: arrow_files.py."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import IO, Any

from studio.data.block import ROWS_PER_BLOCK, Block
from studio.data.containers import Container

UNIT = re.compile(
    r"[(\[<].{1,20}[)\]>]|string|str|text|int|integer|float|number|date|bool|类型|文本|字符串", re.IGNORECASE
)
TOTAL = re.compile(r"(?:grand )?total|sum|summe|gesamt|合计|总计|合計|小计", re.IGNORECASE)
NUMBER = re.compile(r"[\d.,% ]*")
TEXT_FORMULA = re.compile(r'="((?:[^"]|"")*)"')
TEXT_FORMULA_NOTE = 'Cells that Excel wrote as formulas of a text (="…") are read as that text.'


def csv_rows(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """csv's own reading, a row at a time: only CR and LF end a line, and a fault costs the lines it spoils."""
    csv.field_size_limit(1 << 30)
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")  # type: ignore[arg-type]
    reader, table = container.dialect.reader(iter(text)), RowBuilder(container.dialect.above)
    block, line = Block(), 1
    while True:
        cells: list[str] | None = []
        try:
            cells = next(reader, None)
        except csv.Error as error:
            block.add_bad(line, "columns", "", _csv_error_text(error, line, reader.line_num))
        if cells is None:
            if container.dialect.drawn and (beside := reader.rest()):
                block.notes.append(f"Beside the table stands text that was not read: {'; '.join(beside)[:200]}.")
            break
        table.add(block, cells, line, container.dialect.delimiter)
        line = reader.line_num + 1
        if len(block.rows) >= ROWS_PER_BLOCK:
            yield block
            block = Block()
    yield block


def _csv_error_text(error: csv.Error, first: int, last: int) -> str:
    where = f"Line {first}" if last <= first else f"Lines {first} to {last}"
    if "unexpected end" in str(error):
        return f"{where}: a quotation mark is opened and never closed; what stands behind it was not read. Close it."
    if "expected after" in str(error):
        return f"{where}: a quotation mark stands inside a quoted cell; there it must be written twice."
    return f"{where}: {error}."


class RowBuilder:
    """Rows under a header. above: filled rows before it."""

    def __init__(self, above: int):
        self.above = above
        self.skipped: list[str] = []
        self.cells: list[Any] = []  # of the header, as they stand there
        self.header: list[str] | None = None
        self.rows = 0

    def add(self, block: Block, cells: list[Any], line: int, delimiter: str = ",") -> None:
        if not any(cell not in ("", None) for cell in cells):
            return
        if self.header is None and len(self.skipped) < self.above:
            self.skipped.append(" ".join(str(cell) for cell in cells if cell not in ("", None)))
            return
        if self.header is None:
            self.cells = cells
            self.header = column_names([_text_of(cell) for cell in cells])
            titles = [title for title in self.skipped if not title.startswith("sep=")]
            if titles:
                block.notes.append(
                    f"The header is line {line}; above it stands, and was left out: {'; '.join(titles)[:200]}."
                )
            return
        begun_anew = type(cells[0]) is str and cells[0][:1] == "\ufeff"  # files joined, each with its mark
        if cells == self.cells or (begun_anew and column_names(cells) == self.header):
            reason = f"Line {line} repeats the header: it is no row, and left out."
            block.add_bad(line, "columns", delimiter.join(map(str, cells)), reason)
            return
        extra = cells[len(self.header) :]
        if len(cells) < len(self.header) or any(extra):
            reason = f"Line {line} has {len(cells)} cells, the header {len(self.header)}."
            block.add_bad(line, "columns", delimiter.join(map(str, cells)), reason)
            return
        if any(type(cell) is str and cell[:2] == '="' for cell in cells):
            cells = [_text_of(cell) for cell in cells]
            block.notes.append(TEXT_FORMULA_NOTE)
        if (not self.rows or TOTAL.match(str(cells[0]))) and _is_about_table(cells, first=not self.rows):
            block.flagged[len(block.rows)] = "table_row"
        self.rows += 1
        block.add(
            {name or "(no name)": cell for name, cell in zip(self.header, cells) if name or cell not in ("", None)},
            line,
        )


def _is_about_table(cells: list[Any], first: bool) -> bool:
    """Whether a row holds the units of the columns, which stand first, or totals: one word and numbers."""
    texts = [str(cell).strip() for cell in cells if str(cell).strip()]
    if len(texts) < 2:
        return False
    totals = TOTAL.fullmatch(texts[0].rstrip(":：")) and all(map(NUMBER.fullmatch, texts[1:]))
    return bool(totals or (first and all(map(UNIT.fullmatch, texts))))


def _text_of(cell: Any) -> Any:
    """The cell; where Excel wrote a formula of a text, ="Tea", that text."""
    formula = TEXT_FORMULA.fullmatch(cell) if type(cell) is str and cell[:2] == '="' else None
    return formula[1].replace('""', '"') if formula else cell


def column_names(cells: list[Any]) -> list[str]:
    """The columns' names; one that stands there twice gets a number, so that none hides another."""
    names: dict[str, int] = {}  # the number that its last double got
    given: list[str] = []
    for cell in cells:
        base = name = str(cell if cell is not None else "").strip().lstrip("\ufeff")
        while name and name in names:
            names[base] += 1
            name = f"{base} ({names[base]})"
        names[name] = 1
        given.append(name)
    return given
