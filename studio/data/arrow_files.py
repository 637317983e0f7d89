"""Rows from Parquet and Arrow, as JSON values: class numbers by their names, text that is not UTF-8 told row by row."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from studio.data.block import ROWS_PER_BLOCK, Block
from studio.data.compression import open_decompressed
from studio.data.containers import Container
from studio.data.files import bursts
from studio.data.shared_values import shares, written_bytes
from studio.data.tables import column_names
from studio.errors import DataError, reason_of
from studio.home import subfolder

CLASSES_NOTE = "The numbers in {} stand for classes; read are their names: {}."
MEAN_ROW_BYTES = 1 << 18  # a file whose rows are shorter than this is no bomb, however small it is packed
BATCH_BYTES = 1 << 28  # of rows held at once, if each held the longest text
PAGE_HEADER = re.compile(rb"\x15\x04\x15([\x80-\xff]*[\x00-\x7f])")  # of a dictionary: its kind, its bytes unpacked
BYTES = (pa.binary(), pa.large_binary())
PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))


def arrow_rows(path: Path, container: Container) -> Iterator[Block]:
    """The rows. A packed file is unpacked on the disk: its rows are found by its end, and memory might not hold all."""
    if not container.compression:
        yield from _arrow_rows(path, path, container)
        return
    with tempfile.NamedTemporaryFile(dir=subfolder("datasets"), prefix=".unpacked-") as plain:
        with open_decompressed(path, container.compression) as file:
            while data := file.read(1 << 22):
                plain.write(data)
                if bursts(plain.tell(), path):
                    message = f"{path.name} would unpack to more than {plain.tell() >> 20:,} MiB."
                    hint = "Unpack it first."
                    raise DataError(message, hint, path.name)
        plain.flush()
        yield from _arrow_rows(Path(plain.name), path, container)


def _arrow_rows(plain: Path, path: Path, container: Container) -> Iterator[Block]:
    """plain: the file, unpacked. path: as it is told."""
    done, count, size = 0, 0, path.stat().st_size
    try:
        source = pa.memory_map(str(plain))
        notes: list[str] | None = None
        batches = _parquet_batches(source) if container.name == "parquet" else _arrow_batches(source)
        for batch, unpacked in chain.from_iterable(map(_decoded, batches)):
            done += unpacked
            count += batch.num_rows
            if done > count * MEAN_ROW_BYTES and bursts(done, path):
                raise DataError(
                    f"{path.name} has {size >> 10:,} KiB, and its first rows alone unpack to more than "
                    f"{done >> 20:,} MiB: it repeats a very long text.",
                    "Shorten the text, or leave its column out, and write the file again.",
                    path.name,
                )
            if len(set(batch.schema.names)) < len(batch.schema.names):
                batch = batch.rename_columns(column_names(batch.schema.names))
            if notes is None:
                classes = class_names(batch.schema)
                notes = [CLASSES_NOTE.format(name, ", ".join(names[:5])) for name, names in classes.items()]
            for start in range(0, batch.num_rows, ROWS_PER_BLOCK):
                block = _block(batch.slice(start, ROWS_PER_BLOCK), min(done, size))
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


def _parquet_batches(source: Any) -> Iterator[Any]:
    """The rows, few at once where a column's dictionary is large: each row might hold the longest text of it."""
    import pyarrow.parquet as pq  # late: only here

    file = pq.ParquetFile(source)
    groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
    largest = max(
        (sum(_dictionary_bytes(source, group.column(n)) for n in range(group.num_columns)) for group in groups),
        default=0,
    )
    yield from file.iter_batches(batch_size=_rows_at_once(largest))


def _dictionary_bytes(source: Any, column: Any) -> int:
    """Bytes of a column chunk's dictionary page, unpacked; of the whole chunk where its header is written otherwise."""
    if not column.has_dictionary_page:
        return 0
    source.seek(column.dictionary_page_offset)
    header = PAGE_HEADER.match(source.read(16))
    if header is None:
        return int(column.total_uncompressed_size)
    return sum((byte & 0x7F) << 7 * n for n, byte in enumerate(header[1])) >> 1  # Thrift's compact form of an i32


def _rows_at_once(row: int) -> int:
    """How many rows of so many bytes are held at once."""
    return max(1, min(ROWS_PER_BLOCK, BATCH_BYTES // max(1, row)))


def _decoded(batch: Any) -> Iterator[tuple[Any, int]]:
    """The rows with their texts in place of numbers of a dictionary, few at once where many name a long one; bytes."""
    if not any(map(shares, batch.schema.types)):
        yield batch, batch.get_total_buffer_size()  # nbytes would follow offsets that nobody has looked at yet
        return
    batch.validate(full=True)
    coded = [n for n, kind in enumerate(batch.schema.types) if pa.types.is_dictionary(kind)]
    for part, size in _parts(batch):
        for n in coded:
            part = part.set_column(n, batch.schema.names[n], part.column(n).dictionary_decode())
        yield part, size


def _parts(batch: Any) -> Iterator[tuple[Any, int]]:
    """The batch, halved until a part would hold BATCH_BYTES at most; bytes."""
    size = sum(map(written_bytes, batch.columns))
    if size <= BATCH_BYTES or batch.num_rows < 2:
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from _parts(batch.slice(0, half))
    yield from _parts(batch.slice(half))


def _arrow_batches(source: Any) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(source)
        for n in range(reader.num_record_batches):
            yield reader.get_batch(n)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)


def _block(batch: Any, done: int) -> Block:
    """The batch as rows. Raises ArrowInvalid where its buffers are inconsistent: Arrow would read beyond their ends."""
    try:
        batch.validate(full=True)
        return Block([_without_filled_nulls(row) for row in batch.to_pylist(maps_as_pydicts="lossy")], None, done)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return _row_by_row(batch, done)


def _row_by_row(batch: Any, done: int) -> Block:
    """The batch as rows; those whose text is not UTF-8 are bad."""
    columns = [column.view(_bytes_type(column.type)) for column in batch.columns]
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


def _bytes_type(kind: Any) -> Any:
    """The type with binary in the place of every string: any bytes are valid in it."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_bytes_type(field.type)) for field in kind])
    for is_kind, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_kind(kind):
            return make(kind.value_field.with_type(_bytes_type(kind.value_type)))
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
