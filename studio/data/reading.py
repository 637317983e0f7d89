"""read: any source in, a Dataset out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from studio.data.chunk import SCHEMA, digest
from studio.data.containers import blocks, container_of
from studio.data.dataset import Conversations, Dataset
from studio.data.detect import columns_of, detect
from studio.data.formats import formats
from studio.data.problem import Problem
from studio.data.samples import sample_path
from studio.errors import DataError

Report = Callable[[int, int], None]


def read(source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, report: Report | None = None) -> Dataset:
    """Read and check a file, `sample:NAME` or a Hub data set. report(done_bytes, total_bytes) is called as it goes.

    Raises DataError for what is hopeless: no such file, nothing in it, not JSON, no known columns, no usable row.
    """
    path = locate(source)
    if format != "auto" and format not in formats():
        raise DataError(f"There is no format named {format!r}.", f"The formats are: auto, {', '.join(formats())}.", "data.format")
    container, _ = container_of(path)
    total, first, form, tables, problems = path.stat().st_size, 1, None, [], []
    columns, reason, unsure = [], "", ""
    for block in blocks(path, container):
        if form is None:
            columns = columns_of(block.rows[:200])
            if format == "auto":
                found = detect(block.rows, path.name)
                format, reason, unsure = found.format, found.reason, found.unsure
            form = formats()[format]
        chunk = digest(block, first, form, lambda row: row)
        first += chunk.rows
        tables.append(chunk.table)
        problems += chunk.problems
        if report:
            report(block.done, total)
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    if not table.num_rows:
        raise _nothing(path.name, first - 1, problems)
    fingerprint = hashlib.sha256(path.read_bytes() + format.encode()).hexdigest()[:32]
    return Dataset(str(source), format, container, first - 1, Conversations(table), problems, fingerprint, columns, reason, unsure)


def locate(source: str | Path) -> Path:
    """The file a source names."""
    text = str(source)
    if text == "sample" or text.startswith("sample:"):
        return sample_path(text)
    path = Path(text).expanduser()
    if not path.is_file():
        raise DataError(f"There is no file {text!r}.", "Check the path.", "data.train")
    return path


def _nothing(name: str, rows: int, problems: list[Problem]) -> DataError:
    if not problems:
        return DataError(f"{name} holds no rows.", "Choose a file that holds rows.", name)
    p = problems[0]
    return DataError(f"None of the {rows} rows of {name} can be trained on. The first, row {p.row}: {p.reason} Found: {p.value}", p.hint, name)
