"""Read data sets on disk: a folder a data set, named by its fingerprint, that the `datasets` library opens too
(datasets.load_from_disk). Written whole or not at all.

    data-00000-of-00002.arrow …   the conversations (Arrow stream, memory-mapped when read)
    studio.json                   what was read: format, container, rows, reason
    problems.jsonl                the first problems of every kind, with all detail
    rows.npz                      per kind the numbers of all rows; per conversation its hashes
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from studio.data.arrow_buffers import numbers, numbers_of
from studio.data.dataset import Conversations, Dataset
from studio.data.problem import Problem
from studio.home import subfolder

Stored = TypeVar("Stored")
DATASET_FIELDS = (
    "format", "container", "rows", "fingerprint", "columns", "reason", "unsure", "unused", "notes", "encoding"
)  # fmt: skip


ABANDONED = (".new-", ".zip-", ".unpacked-")  # how names begin of what is written while a file is read
ABANDONED_AFTER = 24 * 3600.0  # seconds


def folder_of(fingerprint: str) -> Path:
    return subfolder("datasets") / fingerprint


def new_folder(path: Path | None = None) -> Path:
    """A new folder to write a data set into, until `publish` renames it; with a path, that folder, emptied."""
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
    _sweep(subfolder("datasets"))
    path = path or subfolder("datasets") / f".new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    return path


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they read: as many bytes as the files had, and more."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if path.name.startswith(ABANDONED) and time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def publish(draft: Path, fingerprint: str) -> Path:
    """Give a written folder its name. If another process was quicker, its equal work is taken."""
    target = folder_of(fingerprint)
    try:
        os.replace(draft, target)
    except OSError:
        shutil.rmtree(draft)
    return target


def write(
    folder: Path,
    metadata: dict[str, Any],
    problems: list[Problem],
    rows: dict[str, np.ndarray],
    hashes: dict[str, np.ndarray],
) -> None:
    """Write everything but the Arrow files, which exist already: metadata["files"]."""
    files = metadata["files"]
    with open(folder / "problems.jsonl", "w", encoding="utf-8") as file:
        for p in problems:
            file.write(json.dumps(p.as_dict()) + "\n")
    np.savez(folder / "rows.npz", **{f"kind_{kind}": numbers for kind, numbers in rows.items()}, **hashes)
    (folder / "studio.json").write_text(json.dumps({**metadata, "problems": len(problems)}), encoding="utf-8")
    state = {
        "_data_files": [{"filename": name} for name, *_ in files],
        "_fingerprint": metadata["fingerprint"],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    text = {"dtype": "string", "_type": "Value"}
    number = {"dtype": "int64", "_type": "Value"}
    turns = {"feature": {"role": text, "content": text}, "_type": "List"}
    info = {"description": "", "features": {"row": number, "line": number, "messages": turns, "more": text}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def undamaged(folder: Path, load: Callable[[], Stored]) -> Stored | None:
    """What `load` finds in a stored folder; None where there is none, or where it is damaged and was therefore removed.

    Its files are not forced to the disk, so that a power cut may leave them empty, and cleaners remove what is old.
    """
    if not folder.is_dir():
        return None
    try:
        return load()
    except OSError as error:
        if error.errno not in (None, errno.ENOENT, errno.EISDIR):  # no fault of the files
            raise
    except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def load(source: str, folder: Path) -> Dataset:
    """A stored data set; its rows are read from disk on access."""
    metadata = json.loads((folder / "studio.json").read_text(encoding="utf-8"))
    with open(folder / "problems.jsonl", encoding="utf-8") as file:
        problems = [Problem(**json.loads(line)) for line in file]
    if len(problems) != metadata.get("problems", len(problems)):
        raise ValueError(f"{folder.name} holds {len(problems)} of {metadata['problems']} problems")
    with np.load(folder / "rows.npz") as arrays:
        rows = {key[5:]: arrays[key] for key in arrays.files if key.startswith("kind_")}
        exact, endings = arrays["exact"], arrays["endings"]
    table = Parts(folder, metadata["files"]).table
    return Dataset(
        source=source,
        conversations=Conversations(table),
        problems=problems,
        by_kind=rows,
        exact=exact,
        endings=endings,
        **{key: metadata[key] for key in DATASET_FIELDS},
    )


class Parts:
    """All parts of a data set as one table, on disk. files: (name, rows before it, lines before it)."""

    def __init__(self, folder: Path, files: list[tuple[str, int, int]]):
        self.maps = []
        for name, *_ in files:
            with open(folder / name, "rb") as file:
                self.maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self.table = pa.concat_tables(
            [_shifted(arrays, rows, lines) for arrays, (_, rows, lines) in zip(self.maps, files, strict=True)]
        )

    def forget(self) -> None:
        """Give back the memory of the pages that were read; reading them again brings them back from the file."""
        for arrays in self.maps:
            if hasattr(arrays, "madvise"):  # not on Windows
                arrays.madvise(mmap.MADV_DONTNEED)


def _shifted(arrays: mmap.mmap, first_row: int, first_line: int) -> pa.Table:
    """A part's table, its row and line numbers counted from the beginning of the whole file."""
    table = pa.ipc.open_stream(pa.py_buffer(arrays)).read_all()
    for index, (name, offset) in enumerate((("row", first_row), ("line", first_line))):
        if offset:  # numbers without nulls: only files of lines are read in parts
            table = table.set_column(index, name, numbers(numbers_of(table.column(name)) + offset))
    return table
