"""Seeded defects: each reported with its exact row number, and nothing else in the sound rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.data.problem import KINDS
from studio.errors import DataError

WORDS = [
    "river",
    "stone",
    "lamp",
    "garden",
    "ladder",
    "copper",
    "violin",
    "harbour",
    "pepper",
    "window",
    "candle",
    "marble",
    "ticket",
    "feather",
    "engine",
    "basket",
]


def sound(n: int) -> dict[str, Any]:
    """A row with nothing wrong, unlike every other."""
    a, b, c = WORDS[n % 16], WORDS[(n * 7 + n // 16) % 16], WORDS[(n * 3 + 5) % 16]
    question = f"Number {n}: what has the {a} to do with the {b}, and who keeps the {c} of house {n * 17}?"
    return {
        "instruction": question,
        "input": "",
        "output": f"House {n * 17} keeps its {c} beside the {a}. The {b} came later, in {1800 + n}.",
    }


def said(n: int, **change: Any) -> dict[str, Any]:
    return sound(n) | change


KEY = "sk-" + "Ab3dE5gH7jK9mN1pQ3sT5vX7"
# (what stands in that row, kind); a str is the line itself
SEEDED: dict[int, tuple[Any, str]] = {
    3: ('{"instruction": "broken', "not_json"),
    7: (said(7, output={"text": "an object"}), "wrong_type"),
    11: ({"instruction": "No answer stands here at all."}, "missing_field"),
    14: (said(14, output=""), "empty_field"),
    18: (said(18, output="I am {{name}}, made by {{author}}."), "placeholder"),
    22: (said(22, instruction="Ignore this. <|im_end|> Now what?"), "control_token"),
    26: (said(26, output="The cafÃ© was closed on Sunday."), "mojibake"),
    30: (said(30, output="A bell\x07 rang in the hall."), "nul"),
    33: (said(33, instruction="\ufeffWhat is a byte order mark?"), "bom"),
    37: (said(37, output="First line.\r\nSecond line."), "crlf"),
    41: (sound(2), "duplicate"),
    45: (
        said(45, **{k: v.replace("Number", "number") + (" " if k == "output" else "") for k, v in sound(5).items()}),
        "near_duplicate",
    ),
    48: (said(48, output="Write to jane.doe@mailhost.org for the form."), "secret"),
    52: (said(52, output=f"Use the key {KEY} to log in."), "secret"),
    56: (said(56, output="<p>The answer is <b>seven</b>.</p>"), "html"),
    60: (
        said(
            60, output="The mill was built in 1820. It stood empty for years and was then turned into a school by the"
        ),
        "unfinished",
    ),
    64: (said(64, output="word " * 40_000 + "end."), "too_long"),
    67: ([1, 2, 3], "not_a_row"),
    70: ('{"instruction": "What is NaN?", "input": "", "output": NaN}', "nan"),
    73: (b'{"instruction": "Bytes?", "input": "", "output": "caf\xe9 au lait"}', "encoding"),
    76: ('"only a text"', "missing_field"),
}


def lines(seeded: dict[int, tuple[Any, str]], count: int = 80) -> bytes:
    made = []
    for n in range(1, count + 1):
        row = seeded[n][0] if n in seeded else sound(n)
        made.append(
            row
            if isinstance(row, bytes)
            else row.encode()
            if isinstance(row, str)
            else json.dumps(row, ensure_ascii=False).encode()
        )
    return b"\n".join(made) + b"\n"


@pytest.fixture
def seeded(home: Path, tmp_path: Path) -> data.Dataset:
    path = tmp_path / "seeded.jsonl"
    path.write_bytes(lines(SEEDED))
    return data.read(path)


def test_twenty_seeded_defects_each_with_its_row(seeded: data.Dataset) -> None:
    assert len(SEEDED) >= 20
    found = {(p.row, p.kind) for p in seeded.problems}
    assert found == {(row, kind) for row, (_, kind) in SEEDED.items()}
    assert all(p.line == p.row for p in seeded.problems), "one row a line: row and line are the same"
    assert all(p.reason and p.hint and p.value is not None for p in seeded.problems)


def test_secrets_are_not_spread(seeded: data.Dataset) -> None:
    assert KEY not in "".join(p.value for p in seeded.problems)


TURNS = {
    2: ([("user", "Hi."), ("boss", "Hello.")], "unknown_role"),
    4: ([("user", "One."), ("user", "Two."), ("assistant", "Three.")], "role_order"),
    6: ([("assistant", "Good morning."), ("user", "Hi."), ("assistant", "Well?")], "assistant_first"),
    8: ([("user", "Is nobody there?")], "no_assistant"),
    10: ([("user", "Hi."), ("assistant", "Hello."), ("user", "Bye.")], "no_end"),
    12: ([("user", "Hi."), ("assistant", {"a": 1})], "wrong_type"),
    14: ([("user", "   "), ("assistant", "Hello.")], "empty_field"),
}


def test_defects_of_conversations(home: Path, tmp_path: Path) -> None:
    rows = []
    for n in range(1, 17):
        turns = TURNS[n][0] if n in TURNS else [("user", sound(n)["instruction"]), ("assistant", sound(n)["output"])]
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    path = tmp_path / "c.json"
    path.write_text(json.dumps(rows))
    found = {(p.row, p.kind) for p in data.read(path).problems}
    assert found == {(row, kind) for row, (_, kind) in TURNS.items()}


def test_lines_of_a_json_array_and_of_a_table(home: Path, tmp_path: Path) -> None:
    rows = [sound(n) for n in range(5)]
    rows[3]["output"] = ""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, indent=1))
    (problem,) = data.read(path).problems
    assert (problem.row, problem.kind) == (4, "empty_field")
    assert "Number 3:" in path.read_text().splitlines()[problem.line]
    table = tmp_path / "t.csv"
    table.write_text('instruction,output\nWhat now?,"Two\nlines."\nAnd then?,\nToo,many,cells\n')
    assert [(p.row, p.line, p.kind) for p in data.read(table).problems] == [(2, 4, "empty_field"), (3, 5, "columns")]


def test_the_user_decides(seeded: data.Dataset) -> None:
    plain = seeded.decide()
    refused = {row for row, (_, kind) in SEEDED.items() if KINDS[kind].severity == "refused"}
    assert {row for rows in plain.dropped.values() for row in rows} == refused
    assert len(plain.conversations) == 80 - len(refused)
    strict = seeded.decide({"placeholder": "drop", "secret": "drop"})
    assert strict.dropped["placeholder"] == [18]
    assert strict.dropped["secret"] == [48, 52]
    assert not {18, 48, 52} & set(strict.conversations.rows)
    with pytest.raises(DataError, match="rows 18"):
        seeded.decide({"placeholder": "stop"})
    with pytest.raises(DataError, match="no kind of problem named 'typo'"):
        seeded.decide({"typo": "drop"})
    with pytest.raises(DataError, match="no decision"):
        seeded.decide({"secret": "delete"})


def test_a_refused_row_that_cannot_be_read_is_recorded_even_when_kept(seeded: data.Dataset) -> None:
    kept = seeded.decide({"not_json": "keep"})
    assert kept.dropped["not_json"] == [3]


def test_a_style_without_full_stops_is_no_fault(home: Path, tmp_path: Path) -> None:
    rows = [said(n, output=sound(n)["output"] + " And it ends without any stop in mid air") for n in range(30)]
    path = tmp_path / "s.json"
    path.write_text(json.dumps(rows))
    assert not data.read(path).counts.get("unfinished")
