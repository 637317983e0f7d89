"""Rows that stand there twice, exactly or but for case, spaces and punctuation, in one file or in the training and the
held-out data.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from studio import data, template
from studio.data import store
from studio.data.dataset import Conversations
from studio.data.merging import _near
from studio.data.repeats import normalized
from studio.tokens import Encoder
from studio.ui import words

SAME = [
    ("What is the capital of France?", "what is the  capital of france"),
    ("“Straße”, said she…", '"STRASSE" said she'),
    ("你好，世界。", "你好 世界"),
    ("ｆｕｌｌ　ｗｉｄｔｈ １２", "full width 12"),
    ("don't", "don’t"),
    ("**bold** words", "bold words"),
]
OTHER = [
    ("3 + 5", "3 - 5"),
    ("a < b", "a > b"),
    ("(a + b) / c", "a + b / c"),
    ("cat", "cut"),
    ("50%", "50"),
    ("...", "?"),
    ("👍", "👎"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_texts_that_say_the_same(one: str, other: str) -> None:
    assert normalized(one.encode()) == normalized(other.encode())


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_texts_that_do_not(one: str, other: str) -> None:
    assert normalized(one.encode()) != normalized(other.encode())


def row(question: str, answer: str) -> dict[str, str]:
    return {"instruction": question, "output": answer}


def test_each_repeat_is_told_once_with_the_row_it_repeats(home: Path, tmp_path: Path) -> None:
    rows = [
        row("What is the sea?", "Much water."),
        row("What is a hill?", "A small mountain."),
        row("what is the sea", "Much water"),
        row("What is the sea?", "Much water."),
        row("what is the sea", "Much water"),
        row("What is the sea?", "Much wader."),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = [(p.row, p.kind, p.reason) for p in data.read(path).problems]
    alike = "But for case, spaces and punctuation the same stands in row 1."
    assert found == [
        (3, "near_duplicate", alike),
        (4, "duplicate", "The same stands in row 1."),
        (5, "duplicate", "The same stands in row 3."),
    ]


def test_a_held_out_row_that_is_trained_on_in_other_letters_is_a_leak(
    home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "train.jsonl").write_text(
        "\n".join(json.dumps(row(f"Question {n}?", f"Answer {n}.")) for n in range(5))
    )
    (tmp_path / "eval.jsonl").write_text(
        "\n".join(map(json.dumps, [row("QUESTION 3", "answer 3"), row("Question 9?", "Answer 9.")]))
    )
    order = data.DataOrder(
        train=str(tmp_path / "train.jsonl"), eval=str(tmp_path / "eval.jsonl"), problems={"leak": "drop"}
    )
    made = data.prepare(order, Encoder(tiny_model, template.load("model", tiny_model), 128))
    assert (len(made.eval), made.record["eval"]["dropped"]["leak"]["rows"]) == (1, "1")
    note = data.leak_note(made.record["eval"])
    assert "trained on: 1." in note
    assert "1 are left" in note
    assert words.translate(note, "zh") != note
    assert data.leak_note({"rows": 2, "of": 2}) is None


def test_another_rejected_answer_or_verdict_makes_another_row(home: Path, tmp_path: Path) -> None:
    for name, key, values in (("pairs", "rejected", ("No.", "Never.")), ("verdicts", "label", (True, False))):
        rows = [
            {"prompt": "Is there tea?", "chosen" if name == "pairs" else "completion": "There is.", key: value}
            for value in (*values, values[0])
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        problems = [(p.row, p.kind, p.reason) for p in data.read(path).problems if p.kind != "both_verdicts"]
        assert problems == [(3, "duplicate", "The same stands in row 1.")], name


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="resident pages of a file are counted on Linux alone")
def test_rows_that_were_compared_leave_memory(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    filler = "x" * 20_000
    answers = [
        f"The sea begins here, in these many words. {filler} {n}. And here it ends, in as many words."
        for n in range(300)
    ]
    path.write_text("\n".join(json.dumps(row("What is the sea?", answer)) for answer in answers))
    dataset = data.read(path)
    parts = store.Parts(store.folder_of(dataset.fingerprint), [("data-00000-of-00001.arrow", 0, 0)])
    assert list(_near(Conversations(parts.table), dataset.exact, dataset.endings, parts.forget)) == []
    mappings = Path("/proc/self/smaps").read_text().split(dataset.fingerprint)[1:]
    assert mappings
    assert sum(int(re.search(r"Rss:\s+(\d+)", mapping)[1]) for mapping in mappings) < 1000  # kB
