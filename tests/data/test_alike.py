"""Lines read together give what the same lines give one by one: the same rows, lines, hashes and problems, whatever is broken."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import data
from studio.data import alike, chunk, parts, reading
from studio.data.block import Lines
from studio.data.chunk import Found, digest
from studio.data.converter import Converter
from studio.data.formats import formats
from studio.data.shape import Shapes
from tests.data.fixtures import ALPACA, HISTORY, MESSAGES, QA, SHAREGPT, TOOLS, WITH_INPUT, as_lines, two

SHAPED = [name for name, form in formats().items() if hasattr(form, "SHAPED")]
MAPPINGS = {
    None: None,
    "columns": {"prompt": "question", "answer": "answer"},
    "tags": {"messages": "conversations", "role": "from", "content": "value"},
    "info": {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "me"}},
}
PLAIN = {
    "alpaca": [*ALPACA, *WITH_INPUT, *HISTORY], "chatml": [*MESSAGES, *TOOLS], "sharegpt": SHAREGPT,
    "prompt": [*two(("prompt", "completion")), *two(("question", "answer"))], "text": [{"text": a} for _, a in QA],
}  # fmt: skip
TEXTS = [
    "", " ", "\n", "\u3000", "\u2028 ", "\x1c", "plain", "a b.", 'She said "no".', "back\\slash\\", "\\", '\\"', "tab\tand\nbreak", "Grüße", "漢字。",
    "😀", "\x01", "\x02", "\x00", "\ufeffmark", "I am {{name}}", "someone@example.com", "1", "12", "true", "{", '", "output": "', "\ue0000\ue001", "x" * 70,
    "The first sentence ends. The second one was never brought to its", "user", "assistant", "<|im_end|>", "\ud800", "a\udc00b",
]  # fmt: skip
VALUES = [None, True, False, 0, 1, -1, 2.5, 10**25, 1e300, [], {}, [1], {"a": "b"}, [["q", "a"]], [{"text": "part"}], "", "user", "gpt", "tool"]
SIGNS = [
    *(bytes([sign]) for sign in b'{}[]"\\,:\n\x00\x01\xff 7'), b"\r\n", b"\n\n", b"\xe6\xbc", b"\\u12", b"\\ud83d", b"NaN", b"1e5",
]  # fmt: skip
NAMES = "id instruction input output system history messages conversations role from content value text prompt tools".split()  # noqa: SIM905


def changed(row: Any, draw: random.Random) -> Any:
    """A copy of the row with something in it that may be odd."""
    if isinstance(row, dict):
        made = {key: changed(value, draw) for key, value in row.items()}
        what = draw.random()
        if made and what < 0.05:
            made.pop(draw.choice(list(made)))
        elif what < 0.1:
            made[draw.choice(NAMES)] = draw.choice([*VALUES, *TEXTS])
        elif what < 0.15:
            made = dict(reversed(made.items()))
        return made
    if isinstance(row, list):
        made = [changed(value, draw) for value in row]
        return made + made[-2:] if draw.random() < 0.1 else made
    if draw.random() < 0.15:
        return draw.choice(TEXTS)
    return draw.choice(VALUES) if draw.random() < 0.03 else row


def line(row: Any, draw: random.Random, style: int) -> bytes:
    """The row as one line, in the manner most of the file is written in, or another."""
    style = style if draw.random() < 0.9 else draw.randrange(4)
    text = json.dumps(row, ensure_ascii=style % 2 == 0, separators=(",", ":") if style > 1 else None)
    made = bytearray(text.encode(errors="surrogatepass"))
    if draw.random() < 0.08:
        at = draw.randrange(len(made) + 1)
        made[at : at + draw.choice([0, 0, 1, 4])] = draw.choice(SIGNS)
    return bytes(made) + draw.choice([b"\n"] * 12 + [b"\r\n", b"\n\n", b" \n", b""])


def file(name: str, seed: int, count: int) -> bytes:
    draw = random.Random(seed)
    style, calm = draw.randrange(4), draw.random() < 0.5
    rows = [draw.choice(PLAIN[name]) for _ in range(count)]
    if draw.random() < 0.3:
        rows = [row | {"id": n, "score": n / 8, "source": f"s{n}"} for n, row in enumerate(rows)]
    rows = [changed(row, draw) if not calm or draw.random() < 0.2 else row for row in rows]
    begin = b"\xef\xbb\xbf" if draw.random() < 0.1 else b""
    return begin + b"".join(line(row, draw, style) if not calm or draw.random() < 0.2 else (json.dumps(row) + "\n").encode() for row in rows)


def outcome(data: bytes, name: str, mapping: Any, together: bool) -> tuple[Any, ...]:
    """Table, hashes, number of rows and problems of these lines."""
    convert, found, first, chunks = Converter(formats()[name], mapping), Found(), 5, []
    if not together:
        convert.shapes = None
    for one in digest(Lines(data, 1, len(data)), first, convert, found):
        first += one.rows
        chunks.append(one)
    table = pa.concat_tables(one.table for one in chunks)
    table.validate(full=True)
    hashes = [[int(n) for one in chunks for n in getattr(one, key)] for key in ("exact", "loose")]
    problems = sorted(found.problems, key=lambda p: p.row)  # of one row: in the order in which they were found
    return first, table.to_pylist(), hashes, {kind: sorted(rows) for kind, rows in found.rows.items()}, problems


@settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.sampled_from(SHAPED), st.sampled_from([None, None, *MAPPINGS]), st.integers(0, 1 << 32), st.integers(1, 30), st.booleans())
def test_together_is_as_one_by_one(name: str, mapping: str | None, seed: int, count: int, few: bool) -> None:
    data = file(name, seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk, "FEW", 200 if few else 1 << 14)
        assert outcome(data, name, MAPPINGS[mapping], True) == outcome(data, name, MAPPINGS[mapping], False)


@pytest.mark.parametrize("name", SHAPED)
def test_plain_lines_are_read_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of them is read alone, whatever the numbers beside the texts are."""
    rows = [row | {"id": n, "score": n / 8} for n, row in enumerate(row for _ in range(40) for row in PLAIN[name] if row not in TOOLS)]
    shapes, asked = Converter(formats()[name], None).shapes, []
    reading = alike.read(Lines(as_lines(rows), 1, 0), shapes, lambda *said: asked.append(said))
    assert (reading.rows, len(reading.texts.index), asked) == (len(rows), len(rows), [])
    assert len(shapes) <= 4


def test_a_shape_on_whose_numbers_something_depends_is_odd() -> None:
    shapes = Converter(formats()["alpaca"], None).shapes
    for shape, odd in ((b'{"instruction": "\x01", "input": \x02, "output": "\x01"}', True), (b'{"id": \x02, "instruction": "\x01", "output": "\x01"}', False)):
        assert shapes.recipes[shapes[shape]].odd is odd


def test_shapes_that_never_end_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.data.shape.KNOWN", 10)
    shapes = Shapes(Converter(formats()["text"], None), ())
    for n in range(50):
        shapes[b'{"text": "\x01", "k%d": null}' % n]
    assert (len(shapes), len(shapes.recipes)) == (10, 2)


def test_no_name_that_a_format_knows_holds_a_figure() -> None:
    """Numbers are left out of a shape by a pattern that a name holding one could fool."""
    for name in SHAPED:
        assert not any(c.isdigit() for part in formats()[name].COLUMNS.values() for column in part for c in column)


def test_a_large_file_is_read_in_parts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows, lines and problems of a file read by several processes are those of the file read by one."""
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"".join(file("alpaca", seed, 30) + b"\n" for seed in range(40)))
    whole = data.read(path)
    monkeypatch.setattr(parts, "LARGE", 1)
    monkeypatch.setattr(reading, "VERSION", "in parts")
    several = data.read(path)
    assert len(several.conversations.table.to_pylist()) > 100
    assert several.conversations.table.to_pylist() == whole.conversations.table.to_pylist()
    assert (several.rows, several.problems, several.counts) == (whole.rows, whole.problems, whole.counts)
    assert [rows.tolist() for rows in several.by_kind.values()] == [whole.by_kind[kind].tolist() for kind in several.by_kind]
