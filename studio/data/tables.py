"""Rows from tables: CSV and TSV, tables drawn in text, Parquet and Arrow. Those of Excel: sheets.py."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from studio.data.block import ROWS_PER_BLOCK, Block
from studio.data.compression import open_decompressed
from studio.data.containers import Container
from studio.errors import DataError, reason_of

CLASSES_NOTE = "The numbers in {} stand for classes; read are their names: {}."
PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))
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
    names: list[str] = []
    for cell in cells:
        name = str(cell if cell is not None else "").strip().lstrip("\ufeff")
        names.append(
            name
            if not name or name not in names
            else f"{name} ({sum(n == name or n.startswith(name + ' (') for n in names) + 1})"
        )
    return names


def arrow_rows(path: Path, container: Container) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done, size = 0, path.stat().st_size
    try:
        if container.compression:
            with open_decompressed(path, container.compression) as file:
                source = pa.BufferReader(file.read())
        else:
            source = pa.memory_map(str(path))
        batches = (
            pq.ParquetFile(source).iter_batches(batch_size=ROWS_PER_BLOCK)
            if container.name == "parquet"
            else _arrow_batches(pa, source)
        )
        notes: list[str] | None = None
        for batch in batches:
            done += batch.get_total_buffer_size()  # nbytes would follow offsets that nobody has looked at yet
            if len(set(batch.schema.names)) < len(batch.schema.names):
                batch = batch.rename_columns(column_names(batch.schema.names))
            if notes is None:
                classes = class_names(batch.schema)
                notes = [CLASSES_NOTE.format(name, ", ".join(names[:5])) for name, names in classes.items()]
            for start in range(0, batch.num_rows, ROWS_PER_BLOCK):
                block = _block(pa, batch.slice(start, ROWS_PER_BLOCK), min(done, size))
                for name, names in classes.items():
                    _name_classes(block.rows, name, names)
                block.notes += notes
                notes = []
                yield block
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter: a column's name is no text
        raise DataError(
            f"{path.name} is a damaged {container.name} file: {reason_of(error)}.", "Write the file again.", path.name
        ) from error


def class_names(schema: Any) -> dict[str, list[str]]:
    """The names of the classes that whole numbers stand for, by column, as `datasets` writes them into a file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: f["names"] for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _name_classes(rows: list[Any], column: str, names: list[str]) -> None:
    """Write the class's name in the place of its number; -1 stands for none."""
    for row in rows:
        number = row.get(column) if row else None
        if type(number) is int:
            row[column] = names[number] if 0 <= number < len(names) else None


def _arrow_batches(pa: Any, source: Any) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(source)
        for n in range(reader.num_record_batches):
            yield reader.get_batch(n)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)


def _block(pa: Any, batch: Any, done: int) -> Block:
    """The batch as rows. Raises ArrowInvalid where its buffers are inconsistent: Arrow would read beyond their ends."""
    try:
        batch.validate(full=True)
        return Block([_without_filled_nulls(row) for row in batch.to_pylist(maps_as_pydicts="lossy")], None, done)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return _row_by_row(pa, batch, done)


def _row_by_row(pa: Any, batch: Any, done: int) -> Block:
    """The batch as rows; those whose text is not UTF-8 are bad."""
    columns = [column.view(_bytes_type(pa, column.type)) for column in batch.columns]
    for column in columns:
        column.validate(full=True)
    block = Block(lines=None, done=done)
    for n in range(batch.num_rows):
        cells = dict(zip(batch.schema.names, (column[n].as_py() for column in columns), strict=True))
        try:
            block.rows.append(_without_filled_nulls(_decode_bytes(cells)))
        except UnicodeDecodeError as error:
            block.bad[n] = (
                "encoding",
                error.object.decode(errors="replace"),
                f"It holds bytes that are not UTF-8 (byte {error.start + 1} of the text).",
            )
            block.rows.append(None)
    return block


def _bytes_type(pa: Any, kind: Any) -> Any:
    """The type with binary in the place of every string: any bytes are valid in it."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_bytes_type(pa, field.type)) for field in kind])
    for is_kind, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_kind(kind):
            return make(kind.value_field.with_type(_bytes_type(pa, kind.value_type)))
    return kind


def _decode_bytes(value: Any) -> Any:
    """The value with its bytes as text again. Raises UnicodeDecodeError."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_decode_bytes(inner) for inner in value]
    return {key: _decode_bytes(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _without_filled_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """The row as JSON values, without the null keys that Arrow adds inside objects; decimals and dates as text."""
    return {name: cell if type(cell) in PLAIN_TYPES else _plain_value(cell) for name, cell in row.items()}


def _plain_value(value: Any) -> Any:
    if type(value) is dict:
        return {key: _plain_value(inner) for key, inner in value.items() if inner is not None}
    if type(value) is list:
        return [_plain_value(inner) for inner in value]
    if type(value) is bytes:  # text that was written without its type, or a picture
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return str(value) if isinstance(value, (date, time, timedelta, Decimal)) else value
