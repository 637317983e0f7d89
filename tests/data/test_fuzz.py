"""Broken files: whatever stands in a file, the reader gives a data set or one DataError, never a traceback, never a
hang.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import data
from studio.data import reading, store
from studio.errors import DataError
from tests.data.fixtures import ALPACA, FIXTURES, MESSAGES, as_arrow

WHOLE = [fixture.content() for fixture in FIXTURES]
SIGNS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
    b"\\ud800",
    b"<|im_start|>",
]
NAMES = ["instruction", "output", "messages", "role", "content", "text", "a"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A sound file with pieces cut out, doubled, turned round or overwritten; or noise; or JSON of any shape."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=400))
    if kind == 1:
        return json.dumps(draw(st.lists(JSON, max_size=5))).encode()
    if kind == 2:
        return "\n".join(json.dumps(row) for row in draw(st.lists(JSON, min_size=1, max_size=5))).encode()
    draw_from = random.Random(draw(st.integers(0, 1 << 32)))
    made = bytearray(draw_from.choice(WHOLE))
    for _ in range(draw_from.randint(1, 4)):
        at = draw_from.randrange(len(made) + 1)
        what = draw_from.randrange(5)
        if what == 0:
            del made[at:]
        elif what == 1:
            made[at : at + draw_from.randint(1, 9)] = draw_from.choice(SIGNS)
        elif what == 2:
            made[at:at] = draw_from.choice(SIGNS) * draw_from.randint(1, 30)
        elif what == 3:
            made[at:at] = made[: draw_from.randrange(60)]
        else:
            made[at : at + 4] = bytes(draw_from.randrange(256) for _ in range(4))
        made = made or bytearray(b" ")
    return gzip.compress(bytes(made))[: draw_from.choice([None, 40])] if kind == 9 else bytes(made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=1200, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(content=broken())
def test_broken_files_end_in_words(content: bytes, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(folder))
        path = folder / "file"
        path.write_bytes(content)
        try:
            found = data.read(path)
        except DataError:
            return
        assert found.rows >= len(found.conversations) >= 1
        for conversation in found.conversations:
            assert conversation.get("text") or conversation["messages"]
        for problem in found.problems:
            assert 1 <= problem.row <= max(found.rows, 1)
        found.decide()


def test_deep_nesting_and_endless_strings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    for content in (
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'[{"instruction": "' + b"a" * 3_000_000,
        b'{"text": ' + b"9" * 100_000 + b"}",
    ):
        path = folder / "deep"
        path.write_bytes(content)
        try:
            data.read(path)
        except DataError:
            continue


TABLES = [fixture.content() for fixture in FIXTURES if fixture.container in ("parquet", "arrow")]


@pytest.mark.parametrize("seed", range(4))
def test_broken_tables_end_in_words(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes overwritten anywhere: lengths, offsets, names, text. Arrow itself would read beyond its buffers."""
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    draw = random.Random(seed)
    for _ in range(100):
        made = bytearray(draw.choice(TABLES))
        for _ in range(draw.randint(1, 4)):
            at, size = draw.randrange(len(made)), draw.choice([1, 2, 4, 8])
            made[at : at + size] = draw.randbytes(size)
        path = folder / "table"
        path.write_bytes(made)
        try:
            data.read(path).decide()
        except DataError:
            continue


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("rows", [ALPACA, MESSAGES])
def test_a_text_of_a_table_that_is_not_utf8_costs_its_row_only(
    rows: list, stream: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    path = folder / "bytes.arrow"
    path.write_bytes(as_arrow(rows, stream).replace(b"Eight minutes", b"Eight \xff\xfenutes"))
    found = data.read(path)
    assert (found.rows, found.conversations.rows, found.by_kind["encoding"].tolist()) == (3, [1, 3], [2])
    told = next(p for p in found.problems if p.kind == "encoding")
    assert "byte 7" in told.reason
    assert told.value.startswith("Eight")


def test_a_table_without_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    for content in (pa.table({"text": pa.array([], pa.string())}), pa.table({})):
        sink = io.BytesIO()
        pq.write_table(content, sink)
        (folder / "none.parquet").write_bytes(sink.getvalue())
        with pytest.raises(DataError, match="holds no rows"):
            data.read(folder / "none.parquet")


def test_nothing_half_made_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    path = folder / "late.jsonl"
    path.write_bytes(b'{"instruction": "a b", "output": "c d"}\n' * 3)

    def broken_off(*_: object) -> None:
        raise DataError("broken off")

    monkeypatch.setattr(reading, "merge", broken_off)
    with pytest.raises(DataError):
        data.read(path)
    assert not [p for p in store.subfolder("datasets").iterdir() if p.name.startswith(".new")]
