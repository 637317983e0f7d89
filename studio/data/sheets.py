"""Rows from Excel: the sheet that holds the data, and what is hidden, merged or without a result in it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Any, NamedTuple

from studio.data.arrow_files import PLAIN_TYPES
from studio.data.block import MAX_ROW_BYTES, READ_BYTES, ROWS_PER_BLOCK, Block
from studio.data.containers import Container
from studio.data.dialects import header_of
from studio.data.files import bursts
from studio.data.tables import RowBuilder
from studio.errors import DataError, reason_of

MERGED = re.compile(rb"<mergeCell ")
FORMULA_WITHOUT_RESULT = re.compile(rb"<f\b[^>]*(?:/>|>[^<]*</f>)(?:<v\s*/>|<v></v>)?</c>")
HIDDEN = re.compile(rb'<(row|col)\b(?=[^>]*\bhidden="(?:1|true)")[^>]*\b(?:r|min)="(\d+)"[^>]*>')
FIXED = re.compile(r"0+(?:\.(?P<decimals>0+))?(?P<percent>%)?")  # formats of numbers
LAST_COLUMN = re.compile(rb'\bmax="(\d+)"')
MAX_CELLS = 50_000_000  # of a sheet, which is held in memory
OVERLAP_BYTES = 1 << 16  # searched twice, so that no cell falls between two chunks


class Sheet(NamedTuple):
    """path: of its XML in the archive. rows: the cells of each."""

    title: str
    visible: bool
    path: str
    rows: list[list[Any]]


class Marks(NamedTuple):
    """What a sheet's XML says beside its cells: numbers of ranges and formulas, numbers of rows and columns."""

    merged: int
    formulas: int
    rows: frozenset[int]
    columns: list[int]


def sheet_rows(path: Path, container: Container) -> Iterator[Block]:
    """The rows of the sheet of an Excel file that looks most like data; a note names the other sheets."""
    sheets = _filled_sheets(path)
    if not sheets:
        raise DataError(f"{path.name} holds no rows.", "Choose a file that holds rows.", path.name)
    visible = [sheet for sheet in sheets if sheet.visible] or sheets
    sheet = max(visible, key=lambda sheet: header_of(sheet.rows).hits)
    marks = _marks_of(path, sheet.path)
    rows = [[cell if type(cell) in PLAIN_TYPES else _date_text(cell) for cell in row] for row in sheet.rows]
    table, block = RowBuilder(header_of(rows).above), Block(notes=_notes_of(marks))
    if len(sheets) > 1:
        others = ", ".join(f"{s.title}{'' if s.visible else ' (hidden)'}" for s in sheets if s is not sheet)
        block.notes.append(f"The sheet {sheet.title} was read; these were not: {others[:200]}.")
    width = max(len(row) for row in rows)
    for line, row in enumerate(rows, 1):
        count = len(block.rows)
        table.add(block, [cell if cell is not None else "" for cell in row] + [""] * (width - len(row)), line)
        if line in marks.rows and len(block.rows) > count and count not in block.bad:
            block.flagged[count] = "hidden_row"
        if len(block.rows) >= ROWS_PER_BLOCK:
            yield block
            block = Block()
    yield block


def _filled_sheets(path: Path) -> list[Sheet]:
    """The sheets that hold more than one row."""
    try:
        import openpyxl  # optional
    except ImportError:
        hint = "pip install openpyxl reads it; or save the sheet as CSV."
        raise DataError(f"{path.name} is an Excel file.", hint, path.name) from None
    try:
        _check_size(path)
        with open(path, "rb") as file:  # by its name openpyxl would refuse one that ends otherwise
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = [
                Sheet(sheet.title, sheet.sheet_state == "visible", sheet._worksheet_path, _rows_of(sheet, path.name))
                for sheet in book.worksheets
            ]
    except DataError:
        raise
    except Exception as error:  # openpyxl and its parser raise what they like on a damaged file
        message = f"{path.name} is a ZIP or Excel file, but damaged: {reason_of(error)}."
        hint = "Open it in Excel and save it again, or as CSV."
        raise DataError(message, hint, path.name) from error
    return [sheet for sheet in sheets if sum(any(c not in (None, "") for c in row) for row in sheet.rows) > 1]


def _check_size(path: Path) -> None:
    """Raise DataError for a file that would not fit into memory: openpyxl holds every text whole."""
    with zipfile.ZipFile(path) as book:
        size = sum(part.file_size for part in book.infolist())
        if bursts(size, path):
            hint = "Save the sheet as CSV."
            raise DataError(f"{path.name} would unpack to more than {size >> 20:,} MiB.", hint, path.name)
        for part in book.infolist():
            length = 0  # bytes since the last tag
            with book.open(part) as xml:
                while part.file_size > MAX_ROW_BYTES and (data := xml.read(READ_BYTES)):
                    length = len(data) - 1 - tag if (tag := data.rfind(b"<")) >= 0 else length + len(data)
                    if length > MAX_ROW_BYTES:
                        raise DataError(
                            f"A cell of {path.name} holds more than {MAX_ROW_BYTES >> 20} MiB of text; Excel's own "
                            "limit is 32,767 characters.",
                            "Shorten its text, and save the file again.",
                            path.name,
                        )


def _rows_of(sheet: Any, name: str) -> list[list[Any]]:
    """The cells of a sheet. Raises DataError where there are more than memory should hold."""
    sheet.reset_dimensions()  # the size that stands in a file may be wrong, and what lies beyond it would be missing
    rows, count = [], 0
    for row in sheet.iter_rows():
        count += max(1, len(row))
        if count > MAX_CELLS:
            message = f"The sheet {sheet.title} of {name} has more than {MAX_CELLS:,} cells, empty ones counted."
            hint = "Delete what stands far to the right of the data or far below it, or save the sheet as CSV."
            raise DataError(message, hint, name)
        rows.append([*map(_shown, row)])
    return rows


def _marks_of(path: Path, sheet: str) -> Marks:
    merged = formulas = 0
    rows: set[int] = set()
    columns: set[int] = set()
    with zipfile.ZipFile(path) as book, book.open(sheet.lstrip("/")) as xml:
        rest = b""
        while data := xml.read(1 << 20):
            merged += len(MERGED.findall(data))
            matches = list(FORMULA_WITHOUT_RESULT.finditer(rest + data))
            formulas += len(matches)
            for hidden in HIDDEN.finditer(rest + data):
                first = int(hidden[2])
                if hidden[1] == b"row":
                    rows.add(first)
                elif last := LAST_COLUMN.search(hidden[0]):
                    columns.update(range(first, min(int(last[1]), first + 50) + 1))
            rest = (rest + data)[max(matches[-1].end() if matches else 0, len(rest + data) - OVERLAP_BYTES) :]
    return Marks(merged, formulas, frozenset(rows), sorted(columns))


def _notes_of(marks: Marks) -> list[str]:
    """Notes on merged cells, on formulas without a result, and on hidden columns."""
    notes = []
    if marks.merged:
        notes.append(
            f"Merged ranges of cells: {marks.merged}. The first cell of each holds its value, the others are read as "
            "empty."
        )
    if marks.formulas:
        notes.append(
            f"Formulas without a saved result, which are read as empty: {marks.formulas}. Open the file in Excel, save "
            "it, and choose it again."
        )
    if marks.columns:
        from openpyxl.utils import get_column_letter  # optional, as above

        letters = ", ".join(map(get_column_letter, marks.columns[:10]))
        notes.append(f"Columns that are hidden in the sheet are read like the others: {letters}.")
    return notes


def _shown(cell: Any) -> Any:
    """A cell's value; a number as the sheet shows it where that only adds signs: 3.10, 007, 25%."""
    value = cell.value
    if type(value) not in (int, float) or not (shape := FIXED.fullmatch(cell.number_format)):
        return value
    decimals, share = len(shape["decimals"] or ""), 100 if shape["percent"] else 1
    text = f"{value * share:0{len(cell.number_format) - bool(shape['percent'])}.{decimals}f}"
    return value if float(text) / share != value or text == str(value) else text + (shape["percent"] or "")


def _date_text(value: Any) -> str:
    """A date or a time of a sheet as text. Excel keeps a date as midnight of that day."""
    if isinstance(value, datetime) and value.time() == time.min:
        value = value.date()
    return str(value)
