"""What was stored of a file that was read or encoded before, damaged since: it is made anew, and comes out the same."""

from __future__ import annotations

import errno
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio import data, template
from studio.data import parallel
from studio.data.editing.rows import rows_of
from studio.data.order import DataOrder
from studio.errors import as_studio_error
from studio.home import subfolder
from studio.tokens import Encoder
from tests.data.fixtures import ALPACA, as_lines

HARMS: dict[str, Callable[[Path], None]] = {
    "emptied": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "gone": Path.unlink,
    "zeroed": lambda file: file.write_bytes(bytes(file.stat().st_size)),
}


def harmed(make: Callable[[], Any], kind: str, pattern: str = "datasets/*") -> list[tuple[str, Any]]:
    """(file of the newest stored folder, what `make` gives after that file alone was harmed), for each file."""
    make()
    name, _, rest = pattern.partition("/")
    folder = max(subfolder(name).glob(rest), key=lambda one: one.stat().st_ctime_ns)
    results = []
    for name in sorted(file.name for file in folder.iterdir() if file.stat().st_size):
        HARMS[kind](folder / name)
        results.append((name, make()))
    return results


@pytest.mark.parametrize("kind", HARMS)
def test_a_data_set_is_read_again(kind: str, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_lines([*ALPACA, ALPACA[0]]))

    def rows() -> Any:
        found = data.read(path)
        return [(c["row"], c["messages"]) for c in found.conversations], [p.kind for p in found.problems]

    expected = rows()
    results = harmed(rows, kind)
    assert len(results) > 3
    assert [name for name, result in results if result != expected] == []


@pytest.mark.parametrize("kind", HARMS)
def test_what_was_encoded_is_encoded_again(kind: str, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ALPACA[0] | {"instruction": f"Say {n}."} for n in range(12)]))
    order = DataOrder(train=str(path), eval=0.25)
    encoder = Encoder(tiny_model, template.load("model", tiny_model), 64)
    data.read(path)

    def ids() -> Any:
        prepared = data.prepare(order, encoder)
        return [
            [list(map(list, (row["input_ids"], row["labels"]))) for row in part]
            for part in (prepared.train, prepared.eval)
        ]

    expected = ids()
    assert [name for name, result in harmed(ids, kind) if result != expected] == []


@pytest.mark.parametrize("kind", HARMS)
def test_rows_to_edit_are_written_again(kind: str, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ALPACA))
    found = data.read(path)

    def values() -> Any:
        kept = rows_of(str(path), found, "auto", None, "auto")
        return [kept.value(row) for row in range(1, len(kept) + 1)]

    results = harmed(values, kind, "edits/*/rows")
    assert len(results) == 3
    assert [name for name, result in results if result != ALPACA] == []


def test_what_a_killed_reader_left_goes_after_a_day(home: Path, tmp_path: Path) -> None:
    folder = subfolder("datasets")
    for age in ("old", "young"):
        for name in (f".new-1-{age}", f".zip-{age}"):
            (folder / name).mkdir()
            (folder / name / "part-0.arrow").write_bytes(b"x")
        (folder / f".unpacked-{age}").write_bytes(b"x")
    for path in folder.glob("*old"):
        os.utime(path, (1, 1))
    (tmp_path / "rows.json").write_text(json.dumps(ALPACA))
    data.read(tmp_path / "rows.json")
    assert sorted(path.name for path in folder.glob(".*")) == [".new-1-young", ".unpacked-young", ".zip-young"]


def test_a_disk_that_fills_while_parts_are_read_is_told_with_the_path(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = f"import sys; sys.stdin.read(); sys.exit({errno.ENOSPC})"
    monkeypatch.setattr(parallel, "COMMAND", [sys.executable, "-c", ends])
    monkeypatch.setattr(parallel, "LARGE", 0)
    (tmp_path / "rows.jsonl").write_bytes(as_lines(ALPACA))
    with pytest.raises(OSError, match="No space") as caught:
        data.read(tmp_path / "rows.jsonl")
    assert as_studio_error(caught.value).message.startswith(f"The disk is full: {subfolder('datasets')}")


def test_a_disk_that_fills_while_an_archive_is_unpacked_is_no_fault_of_the_archive(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", as_lines(ALPACA))
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space") as caught:
        data.read(tmp_path / "rows.zip")
    assert as_studio_error(caught.value).message.startswith(f"The disk is full: {subfolder('datasets')}")
