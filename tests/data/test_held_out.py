"""The rows that are measured on: one place chooses them for the trainer, for eval and for the proof; not more than
wanted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import config, data, run, template
from studio.errors import DataError
from studio.export import proof
from studio.tokens import Encoder
from tests import tiny
from tests.data.fixtures import as_lines


def numbered(count: int, name: str = "a", of: int = 10**9) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Question {n % of} of {name}?", "output": f"Answer {n % of} {'very ' * (n % 7)}of {name}."}
        for n in range(count)
    ]


def long(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Question {n}?", "output": ("word " * 400 if n % 2 else "short ") + str(n)}
        for n in range(count)
    ]


def with_tools(count: int) -> list[dict[str, Any]]:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    turns = [
        [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Answer {n}."}]
        for n in range(count)
    ]
    return [{"messages": messages, "tools": tools} for messages in turns]


def thinking(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"Question {n}?", "output": f"<think>\nHm, {n}.\n</think>\n\n{n}."} for n in range(count)]


CASES: dict[str, tuple[list[list[dict[str, Any]]], dict[str, Any]]] = {
    "two sources": ([numbered(40), numbered(40, "b")], {"eval": 0.1}),
    "repeated rows leak": ([numbered(40, of=10)], {"eval": 0.2}),
    "long rows are dropped": ([long(40)], {"eval": 0.25, "max_length": 128, "too_long": "drop"}),
    "at most so many": ([numbered(60), numbered(20, "b")], {"eval": 0.5, "eval_rows": 8}),
    "tools": ([with_tools(20)], {"eval": 0.2, "template": "chatml", "max_length": 512}),
    "reasoning left out": ([thinking(20)], {"eval": 0.2, "template": "chatml", "reasoning": "drop"}),
}


@pytest.mark.parametrize("case", CASES)
def test_eval_and_proof_measure_what_the_trainer_held_out(
    case: str, home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    sources, options = CASES[case]
    files = []
    for n, lines in enumerate(sources):
        (tmp_path / f"{n}.jsonl").write_bytes(as_lines(lines))
        files.append({"source": str(tmp_path / f"{n}.jsonl")})
    order = config.build({"model": str(tiny_model), "data": {"train": files, "max_length": 256, **options}})
    encoder = Encoder.from_order(order.data, tiny_model)
    made = data.prepare(order.data, encoder, order.training.seed)
    asked = proof._held_out(run.create(order).id)
    anew, found = Encoder(tiny_model, encoder.template), proof.held_out(order)
    assert asked["conversations"] == found[: proof.ROWS]
    for name, value in asked["encoding"].items():  # as studio/worker/prove.py, evaluate.py and influence.py do
        setattr(anew, name, value)
    measured = [anew.encode(one) for one in found]
    assert [(row.ids, row.labels) for row in measured] == [([*row["input_ids"]], [*row["labels"]]) for row in made.eval]
    assert len(found) <= options.get("eval_rows", 2000)
    if case == "at most so many":
        assert (len(found), len(made.train), made.record["eval"]["of"]) == (8, 72, 40)


def test_a_proof_asks_what_was_trained_before_the_answer(home: Path, tmp_path: Path) -> None:
    """The declared tools too: a model trained to call is asked with them. Without the rows that leave no room for an
    answer: one of them was the end of the whole proof.
    """
    folder = tiny.write(tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 1024}))
    rows = with_tools(24)
    for row in rows[::6]:
        row["messages"][0]["content"] += "!" * 450
    (tmp_path / "tools.jsonl").write_bytes(as_lines(rows))
    section = {"train": str(tmp_path / "tools.jsonl"), "eval": 0.25, "template": "chatml", "max_length": 1024}
    order = config.build({"model": str(folder), "data": section})
    encoder = Encoder.from_order(order.data, folder)
    made = data.prepare(order.data, encoder, order.training.seed)
    trained = [[*row["input_ids"]][: np.argmax(np.array(row["labels"]) >= 0)] for row in (*made.eval, *made.train)]
    asked = [encoder.prompt_ids(**question) for question in proof.questions(run.create(order).id)]
    assert sum(len(ids) + 200 > 1024 for ids in trained) == 4
    assert len(asked) == 20
    assert all(ids in trained and len(ids) + 200 <= 1024 for ids in asked)


def test_an_own_file_is_capped_too(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    for name, count in (("train", 10), ("eval", 30)):
        (tmp_path / f"{name}.jsonl").write_bytes(as_lines(numbered(count, name)))
    order = data.DataOrder(train=str(tmp_path / "train.jsonl"), eval=str(tmp_path / "eval.jsonl"), eval_rows=6)
    made = data.prepare(order, Encoder(tiny_model, template.load("model", tiny_model), 128))
    assert (len(made.eval), made.record["eval"]["of"], len(made.train)) == (6, 30, 10)


def test_a_weight_that_leaves_no_row_is_refused(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "few.jsonl").write_bytes(as_lines(numbered(3, "few")))
    order = data.DataOrder(train=[{"source": str(tmp_path / "few.jsonl"), "weight": 0.1}])
    with pytest.raises(DataError, match="The weights of the data leave none"):
        data.prepare(order, Encoder(tiny_model, template.load("model", tiny_model), 128))


def test_fifty_thousand_held_out_rows_are_divided_in_no_time() -> None:
    """Into the same pieces as looking at every piece for every row would; they are kept for the next evaluation."""
    import time

    from studio.worker.batches import EvalBatches
    from studio.worker.packing import Layout, group_rows

    lengths = np.random.default_rng(1).integers(60, 500, 50_000)
    rows = [{"input_ids": range(int(size)), "labels": range(int(size))} for size in lengths]
    began = time.process_time()
    group_rows(rows[:5_000], Layout(True, 4096, 1))
    tenth, began = time.process_time() - began, time.process_time()
    found = group_rows(rows, Layout(True, 4096, 1))
    assert time.process_time() - began < 40 * tenth + 1  # looking at every piece would take 100
    assert sum(map(len, found)) == len(rows)
    assert max(sum(len(row["input_ids"]) for row in group) for group in found) <= 4096
    some = group_rows(rows[:300], Layout(True, 768, 1))
    pieces, left = [], []
    for row in sorted(rows[:300], key=lambda row: -len(row["input_ids"])):
        fitting = [n for n, free in enumerate(left) if free >= len(row["input_ids"])]
        place = min(fitting, key=left.__getitem__, default=len(left))
        if place == len(left):
            pieces.append([])
            left.append(768)
        pieces[place].append(row)
        left[place] -= len(row["input_ids"])
    assert some == pieces
    real = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]}]
    packed = EvalBatches(real, Layout(True, 8, 1))
    assert (packed.num_items, len(packed), [piece["input_ids"][0, :5].tolist() for piece in packed]) == (
        3,
        1,
        [[1, 2, 3, 4, 5]],
    )


def test_a_missing_file_is_told_at_its_own_key(tmp_path: Path) -> None:
    """It was told at data.train, whose field the page marked."""
    order = config.build({"data": {"train": "sample", "eval": str(tmp_path / "none.json")}}).data
    for look in (data.check_found, data.check):
        with pytest.raises(DataError, match="no file") as caught:
            look(order)
        assert caught.value.where == "data.eval"
