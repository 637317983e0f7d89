"""A large data set is trained on while its later rows are still being encoded, with the same result."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.data import json_stream, preparing, streaming
from studio.data.order import DataOrder
from studio.data.splitting import shuffled
from studio.errors import DataError
from studio.home import subfolder
from studio.tokens import Encoder
from tests.worker.carrying import carry, order, steps

COUNT, PART, SEED = 120, 16, 42
UNUSABLE = {7, 50, 51}  # rows whose question alone fills the length


@pytest.fixture(autouse=True)
def _small(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "LARGE", 100)
    monkeypatch.setattr(streaming, "PART", PART)
    monkeypatch.setenv("STUDIO_LARGE", "100")
    monkeypatch.setenv("STUDIO_PART", str(PART))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "rows.json"
    made.write_text(
        json.dumps(
            [
                {"instruction": f"Number {n}. " + "word " * (200 if n in UNUSABLE else n % 9), "output": f"It is {n}."}
                for n in range(COUNT)
            ]
        )
    )
    return made


def ordered(file: Path, **more: Any) -> DataOrder:
    return DataOrder(train=str(file), **{"max_length": 96, "eval": 0, **more})


def encoder(model: Path, given: DataOrder) -> Encoder:
    return Encoder.from_order(given, model)


def until(true: Any, what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, f"no sign of {what}"
        time.sleep(0.05)


def test_the_rows_are_the_same_waited_for_and_found_on_disk(tiny_model: Path, file: Path) -> None:
    given = ordered(file)
    early = data.prepare(given, encoder(tiny_model, given), SEED, ahead=True)
    rows = [early.train[number] for number in range(len(early.train))]
    assert len(rows) == COUNT
    assert {number for number, row in enumerate(rows) if not row["input_ids"]} == UNUSABLE
    until(early.train.finished, "the record")
    assert early.train.finished()["dropped"]["untrained"] == {"count": 3, "rows": "8, 51-52"}
    late = data.prepare(given, encoder(tiny_model, given), SEED, ahead=True)
    assert [late.train[number] for number in range(COUNT)] == rows
    assert late.fingerprint == early.fingerprint
    assert late.train.content == early.train.content
    assert late.statistics["rows"] == early.statistics["rows"] == COUNT
    assert late.statistics["tokens"] == sum(len(row["input_ids"]) for row in rows)
    shutil.rmtree(subfolder("datasets") / f"encoded-{late.fingerprint}")
    alone = data.prepare(given, encoder(tiny_model, given), SEED)
    assert [alone.train[number] for number in range(COUNT)] == rows
    assert alone.statistics == late.statistics
    assert alone.record == late.record


def test_the_first_steps_wait_for_the_first_part_alone(tiny_model: Path, file: Path, tmp_path: Path) -> None:
    given = ordered(file)
    whole = data.prepare(given, encoder(tiny_model, given), SEED)
    folder = tmp_path / "draft"
    folder.mkdir()
    shutil.copy(subfolder("datasets") / f"encoded-{whole.fingerprint}" / "part-00000.arrow", folder)

    def nothing_more() -> None:
        raise DataError("waited")

    rows = streaming.StreamedRows(
        streaming.EpochOrder(given, [COUNT], SEED), folder, tmp_path / "none", nothing_more, 96
    )
    met = shuffled(COUNT, SEED, 0)
    assert [rows[number] for number in met[:PART]] == [whole.train[number] for number in met[:PART]]
    assert len(rows.first(4)) == 4
    with pytest.raises(DataError, match="waited"):
        rows[met[PART]]


def test_weights_of_sources_and_held_out_rows(tiny_model: Path, file: Path) -> None:
    given = DataOrder(train=[{"source": str(file), "weight": 1.5}], max_length=96, eval=0.1)
    early = data.prepare(given, encoder(tiny_model, given), SEED, ahead=True)
    assert len(early.eval) == pytest.approx(12, abs=3)
    assert len(early.train) == pytest.approx(1.5 * 108, abs=3)
    until(early.train.finished, "the record")
    late = data.prepare(given, encoder(tiny_model, given), SEED)
    assert [early.train[number] for number in range(len(early.train))] == [
        late.train[number] for number in range(len(late.train))
    ]
    assert list(early.eval) == list(late.eval)


def test_what_goes_wrong_beside_is_said_in_words(tiny_model: Path, file: Path) -> None:
    given = ordered(file, eval=str(file), problems={"leak": "stop"})
    with pytest.raises(DataError, match="stand in the training data too"):
        data.prepare(given, encoder(tiny_model, given), SEED, ahead=True)


def test_what_a_killed_run_has_left_is_begun_anew(tiny_model: Path, file: Path) -> None:
    given = ordered(file)
    one = encoder(tiny_model, given)
    key = preparing._fingerprint(given, [data.read(str(file))], one, SEED)
    left = subfolder("datasets") / f".ahead-{key}"
    left.mkdir()
    (left / "part-00003.arrow").write_bytes(b"cut")
    early = data.prepare(given, one, SEED, ahead=True)
    assert all(early.train[number]["labels"] for number in range(COUNT) if number not in UNUSABLE)
    assert os.environ["STUDIO_HOME"] in str(left)


def test_a_run_on_growing_rows_learns_what_one_on_ready_rows_learns(tiny_model: Path, file: Path) -> None:
    fixed = (
        "data.max_length=96",
        "data.eval=0",
        "training.max_steps=6",
        "training.probe=true",
        "method.dropout=0",
        "training.packing=false",
    )
    first = carry(order(tiny_model, file, *fixed))
    assert next(event for event in first if event["kind"] == "plan")["data"]["ahead"] == 8
    until(
        lambda: (
            list(subfolder("datasets").glob("encoded-*/record.json"))
            or not data.prepare(ordered(file), encoder(tiny_model, ordered(file)), SEED)
        ),
        "all rows",
    )
    second = carry(order(tiny_model, file, *fixed))
    assert steps(first) == pytest.approx(steps(second), abs=1e-6)
    assert first[-1]["state"] == second[-1]["state"] == "finished"


def test_an_object_around_many_rows_is_not_called_a_long_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(json_stream, "READ_BYTES", 100)
    rows = b",\n".join(json.dumps({"instruction": f"Q {n}", "output": "A"}).encode() for n in range(100))
    stream = json_stream.JsonStream(io.BytesIO(b'{"data": [\n' + rows + b"]}"), "big.json")
    with pytest.raises(DataError, match="The value that begins in line 1 of big.json") as refused:
        stream.value()
    assert "the list inside it alone" in refused.value.hint
