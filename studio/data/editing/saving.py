"""The edited rows as a new file, whole or not at all, with the record of what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studio import crash
from studio.data.dataset import Dataset
from studio.data.editing.log import Edits
from studio.data.editing.record import record_of, record_path
from studio.data.editing.rows import encoded, writable
from studio.data.editing.state import State
from studio.errors import DataError
from studio.home import fsync_path, numbered, slug, subfolder, temporary_path, write_atomic

EDITED_SUFFIX = re.compile(r"(\.edited)?(-\d+)?$")


def save(edits: Edits, revision: int | None = None, fingerprint: str | None = None) -> dict[str, Any]:
    """Write the rows of a log to a new file among the uploads; the log begins anew. As `write`, and StaleError."""
    with edits.saving(revision, fingerprint) as (state, about):
        record = write(edits.dataset, state)
        about |= {"file": Path(record["file"]).name, "sha256": record["sha256"]}
    return record


def write(dataset: Dataset, state: State, out: Path | None = None) -> dict[str, Any]:
    """Write the edited rows to a new file; returns its record, with "file": the path. The original is not changed.

    out: where; None: among the uploads, as NAME.edited.jsonl or with the next number.
    Raises DataError where there is nothing to save, no row would be left, or a file stands there.
    """
    if not state.steps:
        raise DataError("Nothing was changed: there is nothing to save.", "Change a row first.", "revision")
    uploads = subfolder("uploads")
    targets = [out] if out else numbered(uploads, f"{_stem(dataset.source)}.edited", ".jsonl")
    draft = temporary_path(out or uploads / "edited.jsonl")
    try:
        about = _write_rows(draft, state)
        if not about["rows"]:
            raise DataError("No row would be left in the new file.", "Undo a deletion, or add a row.", "rows")
        record = _record(dataset, state, about)
        # before the file: no file is there without its record
        write_atomic(record_path(about["sha256"], about["bytes"]), json.dumps(record))
        crash.point("edit.written")
        return {**record, "file": str(_publish(draft, targets))}
    finally:
        draft.unlink(missing_ok=True)


def _stem(source: str) -> str:
    """The name of what was edited, without its ending and without that it was edited before."""
    name = source.removeprefix("sample:") if source.startswith("sample:") else Path(source).name
    while (stem := Path(name).stem) != name and len(Path(name).suffix) <= 8:
        name = stem
    return slug(EDITED_SUFFIX.sub("", name), "data")[:48]


def _write_rows(path: Path, state: State) -> dict[str, Any]:
    """Write all rows; returns {"sha256", "bytes", "rows", "left_out"}: the rows that are no data."""
    sha256, left_out = hashlib.sha256(), []
    size = count = 0
    with open(path, "xb") as file:
        for row in state.order.tolist():
            line = None if state.broken(row) else _line(state, row)
            if line is None:
                left_out.append(row)
                continue
            sha256.update(line)
            size += file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": sha256.hexdigest(), "bytes": size, "rows": count, "left_out": left_out}


def _line(state: State, row: int) -> bytes | None:
    if not state.changed(row) and (line := state.base.line(row))[:1] == b"{":
        return line + b"\n"
    value = writable(state.value(row))
    return None if value is None else encoded(value) + b"\n"


def _record(dataset: Dataset, state: State, about: dict[str, Any]) -> dict[str, Any]:
    source = Path(dataset.source)
    earlier = record_of(source)
    sha256 = None
    if source.is_file():
        with open(source, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {
        "source": source.name if source.is_absolute() else dataset.source,
        "fingerprint": dataset.fingerprint,
        "rows": dataset.rows,
        "sha256": sha256,
    }
    return {
        "at": time.time(),
        **about,
        "from": origin,
        "operations": len(state.steps),
        "counts": state.counts(),
        "log": [step.model_dump() for step in state.steps],
        **({"earlier": {k: earlier[k] for k in ("from", "counts", "operations")}} if earlier else {}),
    }


def _publish(draft: Path, targets: Iterable[Path]) -> Path:
    """Give a complete file the first of these names that is not taken. Nothing is written over."""
    for path in targets:
        try:
            os.link(draft, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            if path.exists():
                continue
            os.rename(draft, path)
        fsync_path(path.parent)
        return path
    raise DataError(f"There is a file {path.name} already.", "Give another name with --out.", "--out")
