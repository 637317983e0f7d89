"""Broken files: whatever stands in a file, the reader gives a data set or one DataError, never a traceback, never a hang."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import data
from studio.data import reading, store
from studio.errors import DataError
from tests.data.fixtures import FIXTURES

WHOLE = [fixture.content() for fixture in FIXTURES]
SIGNS = [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\n", b"\r\n", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"1e999", b"\\ud800", b"<|im_start|>"]
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
    for content in (b"[" * 200_000, b'{"a":' * 100_000, b'[{"instruction": "' + b"a" * 3_000_000, b'{"text": ' + b"9" * 100_000 + b"}"):
        path = folder / "deep"
        path.write_bytes(content)
        try:
            data.read(path)
        except DataError:
            continue


def test_nothing_half_made_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    path = folder / "late.jsonl"
    path.write_bytes(b'{"instruction": "a b", "output": "c d"}\n' * 3)

    def broken_off(*_: object) -> None:
        raise DataError("broken off")

    monkeypatch.setattr(reading, "_gather", broken_off)
    with pytest.raises(DataError):
        data.read(path)
    assert not [p for p in store.room("datasets").iterdir() if p.name.startswith(".new")]
