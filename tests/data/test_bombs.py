"""Small files that unpack to more than memory holds: told, and never held whole."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from studio.data import arrow_files, sheets
from studio.data.containers import Container
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
