"""The Data tab: what is said of a file, and that any row is shown as what will be trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.ui import data, measure


@pytest.fixture
def mixed(tmp_path: Path, home: Path, tiny_model: Path) -> dict:
    rows = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n} is <b>here</b>."} for n in range(30)]
    rows[3]["output"] = ""
    rows[7] = dict(rows[6])
    rows[9]["output"] = "<script>alert(1)</script> and =HYPERLINK(1)."
    file = tmp_path / "mixed.json"
    file.write_text(json.dumps(rows))
    return {"order": {"model": str(tiny_model), "data": {"train": str(file), "max_length": 60}}, "lang": "en"}


def test_a_file_is_explained(mixed: dict) -> None:
    found = data.inspect(mixed)
    assert (found["format"], found["rows"], found["kept"]) == ("alpaca", 30, 29)
    assert found["train"] + found["held"] == found["kept"]
    kinds = {one["kind"]: one for one in found["problems"]}
    assert kinds["empty_field"]["rows"] == [4]
    assert kinds["empty_field"]["default"] == "drop"
    assert kinds["duplicate"]["default"] == "keep"


def test_of_a_whole_file_s_problem_no_row_can_be_dropped(mixed: dict, tmp_path: Path) -> None:
    file = tmp_path / "legacy.csv"
    file.write_bytes(
        "问题,回答\n订单什么时候发货？,三天之内发货，请放心。\n可以退货吗？,七天之内可以退货。\n".encode("gb18030")
    )
    mixed["order"]["data"]["train"] = str(file)
    kinds = {one["kind"]: one for one in data.inspect(mixed)["problems"]}
    assert kinds["legacy_encoding"]["fixed"]
    assert kinds["legacy_encoding"]["rows"] == []


def test_decisions_count(mixed: dict) -> None:
    mixed["order"]["data"]["problems"] = {"duplicate": "drop"}
    assert data.inspect(mixed)["kept"] == 28
    mixed["order"]["data"]["problems"] = {"duplicate": "stop"}
    assert data.inspect(mixed)["stopped"]["message"]


def test_rows_by_page_search_and_kind(mixed: dict) -> None:
    first = data.rows(mixed)
    assert first["count"] == 29
    assert len(first["rows"]) == 20
    assert [one["row"] for one in data.rows(mixed | {"start": 20})["rows"]][-1] == 30
    assert data.rows(mixed | {"search": "QUESTION 12"})["count"] == 1
    assert [one["row"] for one in data.rows(mixed | {"kind": "duplicate"})["rows"]] == [8]
    assert data.rows(mixed | {"start": 10**9})["rows"] == []
    assert data.rows(mixed | {"start": -5, "search": None})["count"] == 29
    assert data.rows(mixed | {"kind": "'; drop table"})["count"] == 0


def test_a_row_is_shown_as_it_is_trained(mixed: dict) -> None:
    found = data.preview(mixed | {"row": 2})
    assert "".join(text for text, _ in found["tokens"]) == found["text"]
    trained = "".join(text for text, on in found["tokens"] if on)
    assert trained.startswith("Answer 1 is")
    assert trained.rstrip().endswith("<|im_end|>")
    assert found["trained"] == sum(on for _, on in found["tokens"])
    assert (found["before"], found["after"]) == (1, 3)


def test_a_refused_row_says_why(mixed: dict) -> None:
    found = data.preview(mixed | {"row": 4})
    assert found["refused"]
    assert found["problems"][0]["kind"] == "empty_field"
    assert (found["before"], found["after"]) == (3, 5)


@pytest.mark.parametrize("row", [0, 31, -1, 10**12, "4", None, [1]])
def test_rows_that_are_not_there(mixed: dict, row: object) -> None:
    assert data.preview(mixed | {"row": row})["refused"]


def test_lengths_are_counted_as_the_trainer_counts(mixed: dict) -> None:
    found = data.lengths(mixed)
    assert found["of"] == 29
    assert found["lengths"] == sorted(found["lengths"])
    one = data.preview(mixed | {"row": 1})
    assert one["count"] in found["lengths"]
    assert found["tokens"] == sum(found["lengths"])


def test_what_the_template_drops_is_a_problem_on_the_page(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    said = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
    path = tmp_path / "thoughts.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "2+2?"}, said]}))
    asked = {
        "order": {
            "data": {"train": str(path), "template": "chatml", "problems": {"reasoning_dropped": "drop"}},
            "model": str(tiny_model),
        }
    }
    (one,) = data.lengths(asked)["told"]
    assert (one["kind"], one["count"], one["rows"], one["decision"], one["fixed"]) == (
        "reasoning_dropped",
        1,
        [1],
        "drop",
        False,
    )
    assert data.lengths(asked)["fingerprint"] == data.inspect(asked)["fingerprint"]


def test_many_rows_are_sampled_evenly(mixed: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SAMPLE_ROWS", 10)
    measure._lengths.cache_clear()
    found = data.lengths(mixed)
    assert len(found["lengths"]) == 10
    assert found["of"] == 29


@pytest.mark.parametrize("order", [{}, {"data": {}}, None, [], {"data": {"train": ""}}])
def test_nothing_chosen(home: Path, order: object) -> None:
    assert data.inspect({"order": order}) == {"nothing": True}


@pytest.mark.parametrize("text", ["", "not json at all {", "[1, 2, 3]", "[" * 5000])
def test_a_file_that_is_no_data_is_refused_in_words(tmp_path: Path, home: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    found = data.inspect({"order": {"data": {"train": str(file)}}, "lang": "zh"})
    assert found["error"]["message"]


def test_both_sides_of_a_pair_stand_beside_each_other(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"prompt": f"Number {n}?", "chosen": f"It is {n}." * 3, "rejected": "No."} for n in range(9)]
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(rows))
    asked = {"order": {"model": str(tiny_model), "data": {"train": str(file)}}, "lang": "zh"}
    found = data.inspect(asked)
    assert found["stages"] == ["dpo", "orpo", "reward"]
    assert (found["compared"]["pairs"], found["compared"]["longer_chosen"]) == (9, 1)
    assert ["更长" in caution for caution in found["cautions"]] == [True]
    assert not found["rated"]
    shown = data.preview(asked | {"row": 2})
    assert shown["other"] == "No."
    for side, answer in ((shown, "It is 1." * 3), (shown["rejected"], "No.")):
        assert "".join(text for text, on in side["tokens"] if on).startswith(answer)
        assert "".join(text for text, _ in side["tokens"]) == side["text"]


def test_pasted_rows_become_a_file(home: Path) -> None:
    made = data.paste_rows("What is 1?\tOne\nWhat is 2?\tTwo\n")
    assert (made["name"], made["header"]) == ("pasted.jsonl", "row")
    seen = data.inspect({"order": {"data": {"train": made["source"], "eval": 0}}, "lang": "en"})
    assert (seen["rows"], seen["format"]) == (2, "prompt")
    assert data.paste_rows("question,answer\nWhat is 1?,One\n")["name"] == "pasted.csv"


def test_verdicts_and_ratings_are_told(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "rows.json"
    asked = {"order": {"model": str(tiny_model), "data": {"train": str(file)}}, "lang": "en"}
    file.write_text(json.dumps([{"prompt": "Q?", "completion": f"A {n}.", "label": n > 5} for n in range(8)]))
    assert data.inspect(asked)["compared"] == {"good": 2, "bad": 6}
    assert data.preview(asked | {"row": 1})["good"] is False
    for rows in (
        [{"prompt": f"Q {n % 3}?", "response": f"A {n}.", "rating": n} for n in range(8)],
        [{"prompt": f"Q {n}?", "completions": [{"text": "A.", "score": 1}, {"text": "B.", "score": 2}]} for n in "ab"],
    ):
        file.write_text(json.dumps(rows))
        assert data.inspect(asked)["rated"]
    made = data.rated_pairs(str(file))
    assert (made["pairs"], made["name"]) == (2, "pairs-from-rows.jsonl")
    assert data.rated_pairs(str(file))["source"] == made["source"]
    assert data.inspect({"order": {"data": {"train": made["source"]}}, "lang": "en"})["compared"]["pairs"] == 2
