"""Rows from tables: CSV and TSV, Parquet and Arrow."""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from studio.data.block import ROWS, Block
from studio.data.containers import Container
from studio.data.formats import LISTS
from studio.errors import DataError


def csv_rows(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    csv.field_size_limit(1 << 30)
    text = codecs.getreader("utf-8")(file, errors="surrogateescape")
    reader = csv.reader((line.replace("\x00", "") for line in text), delimiter=container.delimiter)
    block, header, line = Block(), None, 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            block.spoil(line, "columns", "", f"Line {line}: {error}.")
            cells = []
        if cells is None:
            break
        if cells and any(cells):
            if header is None and line == 1 and cells[0].lstrip("\ufeff").startswith("sep="):
                pass  # Excel's note of the separator
            elif header is None:
                header = [cell.strip().lstrip("\ufeff") for cell in cells]
            elif len(cells) != len(header):
                reason = f"Line {line} has {len(cells)} cells, the header {len(header)}."
                block.spoil(line, "columns", container.delimiter.join(cells), reason)
            else:
                block.add(_row(header, cells), line)
        line = reader.line_num + 1
        if len(block.rows) >= ROWS:
            yield block
            block = Block()
    yield block


def _row(header: list[str], cells: list[str]) -> dict[str, Any]:
    """A table's row; a list of turns written into a cell as JSON (or as Python prints it) is read."""
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in LISTS:
        cell = row.get(name)
        if isinstance(cell, str) and cell[:1] in ("[", "{") and len(cell) < 1_000_000:
            try:
                row[name] = json.loads(cell)
            except (ValueError, RecursionError):
                try:
                    row[name] = ast.literal_eval(cell)
                except (ValueError, SyntaxError, RecursionError, MemoryError):
                    continue
    return row


def arrow_rows(path: Path, container: Container) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done, size = 0, path.stat().st_size
    try:
        source = pa.BufferReader(gzip.decompress(path.read_bytes())) if container.gz else pa.memory_map(str(path))
        batches = pq.ParquetFile(source).iter_batches(batch_size=ROWS) if container.name == "parquet" else _arrow_batches(pa, source)
        for batch in batches:
            done += batch.get_total_buffer_size()  # nbytes would follow offsets that nobody has looked at yet
            for start in range(0, batch.num_rows, ROWS):
                yield _block(pa, batch.slice(start, ROWS), min(done, size))
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter: a column's name is no text
        raise DataError(f"{path.name} is a damaged {container.name} file: {error}.", "Write the file again.", path.name) from error


def _arrow_batches(pa: Any, source: Any) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(source)
        for n in range(reader.num_record_batches):
            yield reader.get_batch(n)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)


def _block(pa: Any, batch: Any, done: int) -> Block:
    """The batch as rows. Raises ArrowInvalid where its buffers do not fit together: Arrow would read beyond their ends."""
    try:
        batch.validate(full=True)
        return Block(batch.to_pylist(), None, done)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return _row_by_row(pa, batch, done)


def _row_by_row(pa: Any, batch: Any, done: int) -> Block:
    """Rows whose text is not UTF-8 are told apart from sound ones."""
    columns = [_as_bytes(pa, column) for column in batch.columns]
    for column in columns:
        column.validate(full=True)
    block = Block(lines=None, done=done)
    for n in range(batch.num_rows):
        cells = dict(zip(batch.schema.names, (column[n].as_py() for column in columns), strict=True))
        try:
            block.rows.append(_texts(cells))
        except UnicodeDecodeError as error:
            block.bad[n] = ("encoding", error.object.decode(errors="replace"), f"It holds bytes that are not UTF-8 (byte {error.start + 1} of the text).")
            block.rows.append(None)
    return block


def _as_bytes(pa: Any, column: Any) -> Any:
    """The column with every text in it as its bytes, which any bytes are."""
    return column.view(_bytes_type(pa, column.type))


def _bytes_type(pa: Any, kind: Any) -> Any:
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


def _texts(value: Any) -> Any:
    """The value with its bytes as text again. Raises UnicodeDecodeError."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return {key: _texts(one) for key, one in value.items()} if isinstance(value, dict) else value
