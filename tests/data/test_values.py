"""Values that are no plain text: numbers that JSON cannot keep, half signs, keys that stand twice, decimals, dates,
bytes, formulas.
"""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studio import data
from studio.errors import DataError
from tests.data.fixtures import as_lines

SOUND = {"instruction": "How many?", "output": "Seven."}
NUMBERS = {
    "NaN": "nan",
    "Infinity": "nan",
    "-Infinity": "nan",
    "1e400": "nan",
    "1.5e300": "wrong_type",
    "12345678901234567890123": "",
    "-98765432109876543210": "",
    "0.1": "",
    "-7": "",
    "3.10": "",
    "1e3": "",
    "-0.50": "",
    "9007199254740991": "",
}


def answers(dataset: data.Dataset) -> list[str]:
    return [one["messages"][-1]["content"] for one in dataset.conversations]


@pytest.mark.parametrize("written", NUMBERS)
def test_a_number_is_the_answer_as_it_is_written_or_refused(written: str, home: Path, tmp_path: Path) -> None:
    row = f'{{"instruction": "How much?", "output": {written}}}'
    for name, text in {"a.jsonl": f"{json.dumps(SOUND)}\n{row}\n", "b.json": f"[{json.dumps(SOUND)},{row}]"}.items():
        (tmp_path / name).write_text(text)
        found = data.read(tmp_path / name)
        assert [p.kind for p in found.problems if p.severity == "refused"] == [NUMBERS[written]] * bool(
            NUMBERS[written]
        )
        assert answers(found) == ["Seven."] + ([] if NUMBERS[written] else [written])


def test_half_an_emoji_is_named_with_its_turn(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(SOUND) + '\n{"instruction": "What?", "output": "Good \\ud83d day."}\n')
    (one,) = data.read(path).problems
    assert (one.row, one.field, one.kind) == (2, "assistant", "encoding")
    assert r"(\ud83d)" in one.reason


def test_numbers_keep_their_digits_beside_a_line_that_is_no_strict_json(home: Path, tmp_path: Path) -> None:
    numbers = ["3.10", "1E5", "12345678901234567890123"]
    lines = [f'{{"instruction": "Which is number {n}?", "output": {text}}}' for n, text in enumerate(numbers)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, '{"instruction": "And?", "output": NaN}']))
    assert answers(data.read(tmp_path / "a.jsonl")) == numbers


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_keys_that_stand_twice_are_told(name: str, home: Path, tmp_path: Path) -> None:
    rows = [json.dumps(SOUND), '{"instruction": "Which?", "output": "The first.", "output": "The last."}']
    (tmp_path / name).write_text("\n".join(rows) if name == "a.jsonl" else f"[{', '.join(rows)}]")
    found = data.read(tmp_path / name)
    assert found.notes == ["Some rows have a key more than once (output): the last value of each is read."]
    assert answers(found) == ["Seven.", "The last."]


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([Decimal("1.50"), Decimal("22.00")], pa.decimal128(8, 2), ["1.50", "22.00"]),
        (
            [datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 2, 3, 4, 5, tzinfo=UTC)],
            pa.timestamp("s", "UTC"),
            ["2024-01-01 00:00:00+00:00", "2025-02-03 04:05:00+00:00"],
        ),
        ([date(2024, 1, 1), date(2025, 2, 3)], pa.date32(), ["2024-01-01", "2025-02-03"]),
        (["grüß dich".encode(), b"hello"], pa.binary(), ["grüß dich", "hello"]),
    ],
)
def test_typed_cells_are_read_as_they_are_printed(
    values: list[Any], kind: Any, wanted: list[str], home: Path, tmp_path: Path
) -> None:
    pq.write_table(
        pa.table({"instruction": ["One?", "Two?"], "output": pa.array(values, kind)}), tmp_path / "a.parquet"
    )
    assert answers(data.read(tmp_path / "a.parquet")) == wanted


def test_formulas_merged_cells_and_dates_of_a_sheet(home: Path, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (
        ["instruction", "output"],
        ["When?", datetime(2024, 5, 1)],
        ["At what time?", datetime(2024, 5, 1, 12, 30)],
        ["Both?", "The first."],
        [None, "The second."],
        ["How many?", "=1+1"],
    ):
        book.active.append(line)
    book.active.merge_cells("A4:A5")
    book.save(tmp_path / "a.xlsx")
    found = data.read(tmp_path / "a.xlsx")
    assert answers(found) == ["2024-05-01", "2024-05-01 12:30:00", "The first."]
    assert [(p.line, p.field) for p in found.problems] == [(5, "instruction"), (6, "output")]
    assert [note.partition(":")[0] for note in found.notes] == [
        "Merged ranges of cells",
        "Formulas without a saved result, which are read as empty",
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_several_kinds_says_which_pattern_reads_one(packed: bool, home: Path, tmp_path: Path) -> None:
    import gzip

    folder = tmp_path / "rows"
    folder.mkdir()
    lines = as_lines([SOUND, {"instruction": "What?", "output": "That."}])
    (folder / f"a.jsonl{'.gz' * packed}").write_bytes(gzip.compress(lines) if packed else lines)
    (folder / "b.json").write_text(json.dumps([SOUND]))
    with pytest.raises(DataError, match="several kinds") as refused:
        data.read(folder)
    ways = refused.value.hint.removeprefix("Say which: ").removesuffix(".").split(" or ")
    assert sorted(data.read(way).rows for way in ways) == [1, 2]


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_not_unpacked(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.data import files

    monkeypatch.setattr(files, "MAX_UNPACKED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", as_lines([SOUND]) * 40_000)
    with pytest.raises(DataError, match="would unpack to"):
        data.read(tmp_path / "a.zip")


def test_a_number_of_a_sheet_is_the_answer_as_it_is_shown(home: Path, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    shown = {
        "3.10": (3.1, "0.00"),
        "25%": (0.25, "0%"),
        "0007": (7, "0000"),
        "3.14159": (3.14159, "0.00"),
        "4": (4, "0"),
    }
    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    for line, (value, form) in enumerate(shown.values(), 2):
        book.active.append([f"Question {line}?", value])
        book.active.cell(line, 2).number_format = form
    book.save(tmp_path / "a.xlsx")
    assert answers(data.read(tmp_path / "a.xlsx")) == list(shown)


def test_a_key_that_stands_twice_far_behind_is_told(home: Path, tmp_path: Path) -> None:
    rows = [json.dumps(SOUND | {"id": n}) for n in range(12_000)]
    rows[7_000] = '{"instruction": "A?", "output": "First one.", "output": "The second."}'
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert "a key more than once (output)" in " ".join(data.read(tmp_path / "a.jsonl").notes)


def test_what_stands_beside_a_list_of_rows_is_told(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"info": {"post": "Tea."}, "data": [SOUND], "choice": 1}))
    assert "not read beside it: info, choice." in " ".join(data.read(tmp_path / "a.json").notes)
