"""What was stored of a file that was read or encoded before, damaged since: it is made anew, and comes out the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio import data, template
from studio.data.editing.rows import rows_of
from studio.data.order import DataOrder
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
