"""Small files that unpack to more than memory holds: told, and never held whole."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from studio.data import arrow_files, sheets
from studio.data.containers import Container
from studio.data.shared_values import shares, written_bytes
from studio.errors import DataError

TEXT, ROWS = "x" * (1 << 21), 3000


@pytest.mark.parametrize("kind", ["parquet", "parquet, stored as plain text", "arrow"])
def test_one_long_text_that_many_rows_name(
    kind: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([TEXT]))
    table = pa.table({"instruction": pa.array(["a"] * ROWS), "output": column})
    if kind == "arrow":
        feather.write_feather(table, path)
    else:
        pq.write_table(table, path, compression="zstd", store_schema="plain" not in kind)
    monkeypatch.setattr(arrow_files, "BATCH_BYTES", 1 << 24)
    monkeypatch.setattr(arrow_files, "bursts", lambda unpacked, _: unpacked > 1 << 27)
    lengths = []

    def read() -> None:
        for block in arrow_files.arrow_rows(path, Container(kind.split(",")[0])):
            assert {len(row["output"]) for row in block.rows} == {len(TEXT)}
            lengths.append(len(block.rows))

    with pytest.raises(DataError, match="it repeats a very long text"):
        read()
    assert 0 < max(lengths) <= 8
    assert sum(lengths) <= 64


def column_of(kind: str, text: str, rows: int) -> pa.Array:
    """A column whose rows all name one text."""
    values, zeros = pa.array([text]), pa.array([0] * rows, pa.int32())
    named = pa.DictionaryArray.from_arrays(zeros, values)
    if kind == "object":
        return pa.StructArray.from_arrays([named], ["text"])
    if kind == "list":
        return pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), named)
    if kind == "map":
        return pa.MapArray.from_arrays(pa.array(range(rows + 1), pa.int32()), pa.array(["a"] * rows), named)
    if kind == "objects in a dictionary":
        return pa.DictionaryArray.from_arrays(zeros, pa.StructArray.from_arrays([values], ["text"]))
    if kind == "run":
        return pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), values)
    if kind == "view":
        view = struct.pack("<i4sii", len(text), text[:4].encode(), 0, 0)
        inline = struct.pack("<i12s", len(text), text[:12].encode())
        views = pa.py_buffer((view if len(text) > 12 else inline) * rows)
        return pa.Array.from_buffers(pa.string_view(), rows, [None, views, pa.py_buffer(text.encode())])
    return pa.ListViewArray.from_arrays(zeros, pa.array([1] * rows, pa.int32()), values)


@pytest.mark.parametrize(
    "kind", ["object", "list", "map", "objects in a dictionary", "run", "view", "view of lists", "one row"]
)
def test_one_long_text_that_many_values_name_deep_inside(
    kind: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lengths = tmp_path / "rows", []
    one = pa.ListArray.from_arrays(pa.array([0, ROWS], pa.int32()), column_of("object", TEXT, ROWS))
    table = pa.table({"output": one if kind == "one row" else column_of(kind, TEXT, ROWS)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    monkeypatch.setattr(arrow_files, "BATCH_BYTES", 1 << 24)
    monkeypatch.setattr(arrow_files, "bursts", lambda unpacked, _: unpacked > 1 << 27)
    with pytest.raises(DataError, match="it repeats a very long text"):
        lengths += [len(block.rows) for block in arrow_files.arrow_rows(path, Container("arrow"))]
    assert max(lengths, default=0) <= 8


@pytest.mark.parametrize("kind", ["object", "list", "map", "objects in a dictionary", "run", "view", "view of lists"])
def test_what_is_named_often_is_counted_as_often(kind: str) -> None:
    column = column_of(kind, "twelve bytes", 100)
    assert shares(column.type)
    assert 1200 <= written_bytes(column) <= 1200 + 100 * 24  # beside the texts: offsets, keys
    assert 360 <= written_bytes(column.slice(10, 30)) <= 360 + 30 * 24 + 40


def test_a_dictionary_of_short_texts_is_read_in_large_blocks(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"output": ["yes", "no"] * ROWS}), path)
    blocks = list(arrow_files.arrow_rows(path, Container("parquet")))
    assert [len(block.rows) for block in blocks] == [1000] * (2 * ROWS // 1000)


@pytest.mark.parametrize("limit", ["cell", "file"])
def test_a_sheet(limit: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, plain, path = openpyxl.Workbook(), tmp_path / "plain.xlsx", tmp_path / "rows.xlsx"
    for row in (["question", "answer"], ["Why?", "FILL"], ["How?", "So."]):
        book.active.append(row)
    book.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b"FILL", TEXT.encode()))
    monkeypatch.setattr(sheets, "MAX_ROW_BYTES", 1 << 20)
    monkeypatch.setattr(sheets, "READ_BYTES", 1 << 16)
    if limit == "file":
        monkeypatch.setattr(sheets, "bursts", lambda unpacked, _: unpacked > len(TEXT))
    told = {"cell": "A cell of rows.xlsx holds more than 1 MiB of text", "file": "would unpack to more than 2 MiB"}
    with pytest.raises(DataError, match=re.escape(told[limit])):
        list(sheets.sheet_rows(path, Container("xlsx")))
