"""Ranges of an answer that are not trained (axolotl's train_detail), against the characters that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import data, template
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoder

SAID = "First thought. Second thought. Third thought."
DETAILS = [{"begin_offset": 0, "end_offset": 14, "train": False}, {"begin_offset": 15, "end_offset": 29, "train": True}]


def read(tmp_path: Path, **turn: Any) -> data.Dataset:
    row = {"messages": [{"role": "user", "content": "Think."}, {"role": "assistant", "content": SAID, **turn}]}
    sound = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(sound))
    return data.read(path)


def trained(encoder: Encoder, conversation: Any) -> str:
    e = encoder.encode(conversation)
    return "".join(e.text[a:b] for (a, b), label in zip(e.offsets, e.labels, strict=True) if label != IGNORE_INDEX)


@pytest.mark.parametrize("train_on", ["assistant", "last", "all"])
def test_only_the_named_characters_are_trained(train_on: Any, home: Path, tmp_path: Path, tiny_model: Path) -> None:
    encoder = Encoder(tiny_model, template.load("chatml", tiny_model), train_on=train_on)
    said = trained(encoder, read(tmp_path, train_detail=DETAILS).conversations[0])
    assert "Second thought." in said
    assert "First" not in said
    assert "Third" not in said
    assert "<|im_end|>" in said, "the turn ends all the same"


def test_overlapping_ranges_and_all_of_it(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    encoder = Encoder(tiny_model, template.load("chatml", tiny_model))
    whole = [
        {"begin_offset": 10, "end_offset": len(SAID) - 1, "train": True},
        {"begin_offset": 0, "end_offset": 20, "train": True},
    ]
    conversation = read(tmp_path, train_detail=whole).conversations[0]
    assert "untrained" not in conversation["messages"][1]
    assert SAID in trained(encoder, conversation)


@pytest.mark.parametrize(
    "details",
    [
        "yes",
        [{"train": True}],
        [{"begin_offset": 3, "end_offset": 99, "train": True}],
        [{"begin_offset": 5, "end_offset": 2, "train": True}],
        [{"begin_offset": 0, "end_offset": 2, "train": 0.5}],
    ],
)
def test_ranges_that_are_none_are_refused_by_name(details: Any, home: Path, tmp_path: Path) -> None:
    found = read(tmp_path, train_detail=details)
    assert [(p.row, p.kind, p.field) for p in found.problems] == [(1, "wrong_type", "messages[1].train_detail")]
