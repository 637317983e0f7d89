"""Random access to the raw rows of a file: JSON Lines in the home, and the end of each line."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from studio.data import store
from studio.data.dataset import Dataset
from studio.data.formats import as_row
from studio.data.reading import open_source
from studio.errors import DataError
from studio.home import subfolder

UNUSED_SECONDS = 24 * 3600.0  # seconds


def folder_of(fingerprint: str) -> Path:
    """The folder of a file's edits, named by its content and by how it is read: another content has other edits."""
    path = subfolder("edits") / fingerprint
    path.mkdir(exist_ok=True)
    return path


class Rows:
    """Row numbers count from 1. broken: {row: (kind, value, reason)}. format, mapping: how a row is converted."""

    def __init__(self, folder: Path):
        metadata = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.format, self.mapping = metadata["format"], metadata["mapping"]
        self.broken = {int(row): tuple(why) for row, why in metadata["broken"].items()}
        self.ends = np.load(folder / "ends.npy")
        with open(folder / "rows.jsonl", "rb") as file:
            self.lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if int(self.ends[-1]) != len(self.lines) or self.lines[-1:] != b"\n":
            raise ValueError(f"rows.jsonl is not what was written: {self.ends[-1]} bytes of lines")

    def __len__(self) -> int:
        return len(self.ends)

    def line(self, row: int) -> bytes:
        """The row as JSON, without the end of the line."""
        return self.lines[(int(self.ends[row - 2]) if row > 1 else 0) : int(self.ends[row - 1]) - 1]

    def value(self, row: int) -> Any:
        return json.loads(self.line(row))


def rows_of(source: str, dataset: Dataset, format: str, mapping: dict[str, Any] | None, encoding: str) -> Rows:
    """The raw rows of a file; written once, and kept until its edits are saved or discarded. Raises DataError."""
    folder = folder_of(dataset.fingerprint) / "rows"
    stored = store.undamaged(folder, lambda: Rows(folder))
    if stored is None:
        _sweep()
        draft = folder.with_name(f".new-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        draft.mkdir()
        try:
            _write_rows(draft, source, format, mapping, encoding)
            os.replace(draft, folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        stored = Rows(folder)
    os.utime(folder)
    return stored


def _sweep() -> None:
    """Remove the rows of files that were not edited for a day; they are written again when needed."""
    for folder in subfolder("edits").glob("*/rows"):
        if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _write_rows(folder: Path, source: str, format: str, mapping: dict[str, Any] | None, encoding: str) -> None:
    ends, broken = [], {}
    done = count = 0
    with open_source(source, format, mapping, encoding) as (first, blocks), open(folder / "rows.jsonl", "wb") as file:
        for block in blocks:
            for n, row in enumerate(block.rows):
                count += 1
                if n in block.bad:
                    broken[count] = block.bad[n]
                done += file.write(encoded(row) + b"\n")
                ends.append(done)
        metadata = {"format": first.detection.format, "mapping": first.mapping, "broken": broken}
    np.save(folder / "ends.npy", np.array(ends, np.int64))
    (folder / "about.json").write_text(json.dumps(metadata, default=str), encoding="utf-8")


def encoded(value: Any) -> bytes:
    """A row as one line of JSON that says the same when it is read again. Raises DataError where JSON cannot say it."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_as_text).encode()
    except UnicodeEncodeError:  # half surrogates: only escapes can say them
        return json.dumps(value, default=_as_text).encode()


def _as_text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        message = "A column of this file holds bytes, such as pictures, which JSON Lines cannot hold."
        hint = "Save the file without that column, and import it again."
        raise DataError(message, hint, "data.train")
    return str(value)  # dates, decimals


def writable(value: Any) -> Any:
    """The row as an object, as a new file holds it; None for what is no row and would spoil the file's layout."""
    draft = value if isinstance(value, dict) else as_row(value)
    return draft if isinstance(draft, dict) else None
