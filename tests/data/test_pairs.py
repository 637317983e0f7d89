"""Preference pairs and verdicts: how they are read, checked, encoded for their stages, and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio import config, data, template
from studio.__main__ import main
from studio.data import DataOrder, examples
from studio.data.splitting import prompt_groups
from studio.errors import DataError, StudioError
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoder

QUESTION = "Which of the two rivers is the longer one?"


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    return str(file)


def prepared(path: str, model: Path, examples: str, **order: Any) -> data.Prepared:
    made = DataOrder(train=path, eval=0, **order).learnt_by(examples)
    return data.prepare(made, Encoder.from_order(made, model, template.load("model", model)))


LAYOUTS: dict[str, dict[str, Any]] = {
    "columns": {"prompt": QUESTION, "chosen": "The first.", "rejected": "Neither of them."},
    "system": {"system": "Be brief.", "question": QUESTION, "chosen": "The first.", "rejected": "Neither of them."},
    "sharegpt": {
        "conversations": [{"from": "human", "value": QUESTION}],
        "chosen": {"from": "gpt", "value": "The first."},
        "rejected": {"from": "gpt", "value": "Neither of them."},
    },
    "whole conversations": {
        side: [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        for side, text in (("chosen", "The first."), ("rejected", "Neither of them."))
    },
    "hh": {side: f"\n\nHuman: {QUESTION}\n\nAssistant: {side}." for side in ("chosen", "rejected")},
    "ms-swift": {"query": QUESTION, "response": "The first.", "rejected_response": "Neither of them."},
    "openai": {
        "input": {"messages": [{"role": "user", "content": QUESTION}]},
        "preferred_output": [{"role": "assistant", "content": "The first."}],
        "non_preferred_output": [{"role": "assistant", "content": "Neither of them."}],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_two_sequences(layout: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Each is what the tokenizer makes of the whole conversation with that answer; only the answer is compared."""
    path = write(tmp_path, [LAYOUTS[layout]] * 2)
    (conversation, _) = data.read(path).conversations
    row = prepared(path, tiny_model, "pairs").train[0]
    encoder = Encoder(tiny_model, template.load("model", tiny_model), train_on="last")
    *prompt, chosen = conversation["messages"]
    sides = {chosen["content"]: slice(row["second"]), conversation["rejected"]: slice(row["second"], None)}
    for answer, part in sides.items():
        whole = encoder.encode([*prompt, {"role": "assistant", "content": answer}])
        assert row["input_ids"][part] == whole.ids
        trained = [token for token in row["labels"][part] if token != IGNORE_INDEX]
        assert encoder.tokenizer.decode(trained, skip_special_tokens=True).strip() == answer


def test_verdicts_carry_their_label(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": QUESTION, "completion": f"Number {n}.", "label": n % 3 == 0} for n in range(6)]
    train = prepared(write(tmp_path, rows), tiny_model, "verdicts").train
    assert [row["good"] for row in train] == [row["label"] for row in rows]
    assert {row["good"] for row in train[:]} == {True, False}


def test_each_side_is_cut_by_itself_and_nothing_is_lost_in_silence(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    long = "word " * 60
    rows = [
        {"prompt": "Short?", "chosen": "Yes.", "rejected": long},
        {"prompt": long, "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Short?", "chosen": "No.", "rejected": "Yes."},
    ]
    path = write(tmp_path, rows)
    cut = prepared(path, tiny_model, "pairs", max_length=60)
    assert len(cut.train) == 2
    assert [max(row["second"], len(row["input_ids"]) - row["second"]) <= 60 for row in cut.train] == [True, True]
    assert cut.record["cut"]["over_limit"]["rows"] == "1"
    assert cut.record["dropped"]["untrained"]["rows"] == "2"
    dropped = prepared(path, tiny_model, "pairs", max_length=60, too_long="drop")
    assert (len(dropped.train), dropped.record["dropped"]["over_limit"]["rows"]) == (1, "1-2")


def test_a_stage_keeps_rows_of_its_own(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The same file under sft (chosen alone) and dpo is encoded apart, and sft's rows are as they were."""
    path = write(tmp_path, [{"prompt": f"Q {n}?", "chosen": f"A {n}.", "rejected": "No."} for n in range(9)])
    both = prepared(path, tiny_model, "pairs")
    alone = prepared(path, tiny_model, "answers", format="chosen")
    assert both.fingerprint != alone.fingerprint
    assert set(alone.train[0]) == {"input_ids", "labels"}
    assert [row["input_ids"][: row["second"]] for row in both.train] == [row["input_ids"] for row in alone.train]


def test_a_large_set_is_the_same_row_for_row(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.data import streaming

    path = write(tmp_path, [{"prompt": f"Q {n}?", "chosen": f"A {n}.", "rejected": "No." * (1 + n)} for n in range(9)])
    small = prepared(path, tiny_model, "pairs", too_long="cut")
    monkeypatch.setattr(streaming, "LARGE", 4)
    monkeypatch.setattr(streaming, "PART", 4)
    large = prepared(path, tiny_model, "pairs", too_long="drop")
    assert list(large.train) == list(small.train)
    assert large.statistics == small.statistics


FAULTS = {
    "same_answers": {"prompt": QUESTION, "chosen": "The first.", "rejected": "The first."},
    "empty_field": {"prompt": QUESTION, "chosen": "The first.", "rejected": "  "},
    "prompt_in_side": {"prompt": QUESTION, "chosen": f"{QUESTION} The first.", "rejected": "Neither."},
    "swapped_sides": {
        "prompt": QUESTION, "chosen": "The first.", "rejected": "None.", "score_chosen": 2.0, "score_rejected": 8.5,
    },
}  # fmt: skip
SOUND = {"prompt": "Is the sea wide?", "chosen": "It is.", "rejected": "Is it?"}


@pytest.mark.parametrize("kind", FAULTS)
def test_faulty_pairs_are_named(kind: str, home: Path, tmp_path: Path) -> None:
    found = data.read(write(tmp_path, [SOUND, FAULTS[kind]]))
    assert [problem.row for problem in found.problems if problem.kind == kind] == [2]
    assert not [problem for problem in found.problems if problem.row == 1]


@pytest.mark.parametrize(
    ("stage", "rows", "message"),
    [
        ("dpo", [{"prompt": f"Q {n}?", "chosen": "Yes.", "rejected": "Yes."} for n in range(3)], "are the same"),
        ("reward", [{"prompt": "Q?", "chosen": "Yes.", "rejected": "Yes."}], "are the same"),
        ("kto", [{"prompt": f"Q {n}?", "completion": "Yes.", "label": True} for n in range(3)], "called good"),
        ("kto", [{"prompt": f"Q {n}?", "completion": "Yes.", "label": False} for n in range(3)], "called bad"),
    ],
)
def test_answers_that_nothing_tells_apart_are_refused(
    stage: Any, rows: list[dict[str, Any]], message: str, home: Path, tmp_path: Path
) -> None:
    """Of all sources together: one file of good and one of bad answers are enough."""
    order = config.build({"data": {"train": write(tmp_path, rows)}, "stage": stage})
    with pytest.raises(StudioError, match=message) as caught:
        data.check(order.data)
    assert caught.value.hint
    other = tmp_path / "other.json"
    pair, verdict = SOUND, {"prompt": "Q?", "completion": "No.", "label": not rows[0].get("label")}
    other.write_text(json.dumps([pair if "chosen" in rows[0] else verdict]))
    sources = [{"source": str(file), "weight": 1} for file in (tmp_path / "rows.json", other)]
    data.check(order.with_changes(data={"train": sources}).data)


def test_two_rows_that_contradict_each_other_are_named(home: Path, tmp_path: Path) -> None:
    turned = {**SOUND, "chosen": SOUND["rejected"], "rejected": SOUND["chosen"]}
    other = {**turned, "prompt": "Is the lake wide?"}
    found = data.read(write(tmp_path, [SOUND, other, turned]))
    (problem,) = [problem for problem in found.problems if problem.kind == "swapped_sides"]
    assert (problem.row, "row 1" in problem.reason) == (3, True)
    assert found.decide({"swapped_sides": "drop"}).counts == {"swapped_sides": 1}


@pytest.mark.parametrize("examples", ["pairs", "verdicts"])
@pytest.mark.parametrize("prompts", [1, 2, 5, 12, 30])
def test_answers_to_one_prompt_stay_on_one_side_of_the_split(
    prompts: int, examples: str, home: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"Q {n % prompts}?", "chosen": f"A {n}.", "rejected": "No."} for n in range(30)]
    if examples == "verdicts":
        rows = [{"prompt": row["prompt"], "completion": row["chosen"], "label": n % 2} for n, row in enumerate(rows)]
    conversations = data.read(write(tmp_path, rows)).conversations
    train, held_out = data.split(conversations, 0.3, 42, None, prompt_groups(conversations))
    asked, measured = ({row["messages"][0]["content"] for row in part} for part in (train, held_out))
    assert not asked & measured
    assert len(train) + len(held_out) == 30
    few, many = {1: (0, 0), 2: (15, 15), 5: (6, 6), 12: (5, 9), 30: (9, 9)}[prompts]
    assert few <= len(held_out) <= many


def test_a_run_measures_on_other_prompts_than_it_trains_on(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": f"Q {n % 9}?", "chosen": f"A {n}.", "rejected": "No."} for n in range(36)])
    order = DataOrder(train=path, eval=0.3).learnt_by("pairs")
    encoder = Encoder.from_order(order, tiny_model, template.load("model", tiny_model))
    measured = {row["messages"][0]["content"] for row in data.held_out(order, encoder)}
    trained = {row["messages"][0]["content"] for row in data.trained_on(order, count=99)}
    assert measured
    assert not measured & trained


def test_verdicts_that_contradict_each_other_and_repeated_questions_are_named(home: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": QUESTION, "completion": "The first.", "label": True},
        {"prompt": QUESTION, "completion": "Neither.", "label": False},
        {"prompt": QUESTION, "completion": "The first.", "label": False},
        {"prompt": QUESTION, "completion": f"{QUESTION} The second.", "label": True},
    ]
    found = data.read(write(tmp_path, rows))
    told = {(problem.kind, problem.row): problem.reason for problem in found.problems if problem.kind != "duplicate"}
    assert set(told) == {("both_verdicts", 3), ("prompt_in_side", 4)}
    assert "row 1" in told["both_verdicts", 3]


CALL = '{"name": "get", "arguments": {"city": "%s"}}'
CALLING: dict[str, Any] = {
    "words": lambda city: f"<tool_call>\n{CALL % city}\n</tool_call>",
    "another maker's words": lambda city: f"[TOOL_CALLS][{CALL % city}]",
    "messages": lambda city: [{"role": "assistant", "content": "", "tool_calls": [json.loads(CALL % city)]}],
    "ShareGPT": lambda city: {"from": "function_call", "value": CALL % city},
}


@pytest.mark.parametrize("layout", CALLING)
def test_both_sides_call_tools_in_the_form_of_the_template(layout: str, home: Path, tmp_path: Path) -> None:
    sides = {"chosen": CALLING[layout]("Rome"), "rejected": CALLING[layout]("Oslo")}
    tools = [{"name": "get", "description": "d", "parameters": {"type": "object", "properties": {}}}]
    found = data.read(write(tmp_path, [{"prompt": "Hi", **sides, "tools": tools}]))
    assert (found.unused, found.counts) == ([], {})
    conversation = found.conversations[0]
    assert conversation["tools"]
    for one, city in ((conversation, "Rome"), (examples.rejected_side(conversation), "Oslo")):
        answer = one["messages"][-1]
        assert answer["content"] == ""
        assert [call["function"]["arguments"] for call in answer["tool_calls"]] == [{"city": city}]
    assert examples.describe(found)["characters_chosen"] > 30


def test_a_side_keeps_its_reasoning(home: Path, tmp_path: Path) -> None:
    sides = {
        name: [{"role": "assistant", "content": "Yes.", "reasoning_content": f"For the {name}."}]
        for name in ("chosen", "rejected")
    }
    found = data.read(write(tmp_path, [{"prompt": "Hi", **sides}]))
    assert (found.unused, found.counts) == ([], {})
    for one, name in ((found.conversations[0], "chosen"), (examples.rejected_side(found.conversations[0]), "rejected")):
        assert one["messages"][-1]["reasoning_content"] == f"For the {name}."


@pytest.mark.parametrize("examples", ["prompts", "pairs", "answers"])
def test_rows_that_are_all_too_long_are_refused_before_the_start(
    examples: str, home: Path, tmp_path: Path, tiny_model: Path
) -> None:
    rows: dict[str, Any] = {
        "prompts": {"prompt": "word " * 90},
        "pairs": {"prompt": "Hi", "chosen": "word " * 90, "rejected": "other " * 95},
        "answers": {"instruction": "Hi", "output": "word " * 90},
    }
    file = str(write(tmp_path, [rows[examples]] * 3))
    order = DataOrder(train=file, max_length=40, too_long="drop").learnt_by(examples)
    with pytest.raises(DataError, match="more than 40 tokens") as caught:
        data.check(order, tiny_model)
    enough = int(caught.value.hint.split()[3])
    data.check(DataOrder(train=file, max_length=enough, too_long="drop").learnt_by(examples), tiny_model)


def test_length_and_balance_are_told(home: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Q {n}?", "chosen": "Long " * (9 if n < 9 else 1), "rejected": "Short, yes."} for n in range(12)
    ]
    found = data.read(write(tmp_path, rows))
    assert examples.describe(found)["longer_chosen"] == 0.75
    assert "75%" in examples.cautions(examples.describe(found))[0]
    verdicts = [{"prompt": f"Q {n}?", "completion": f"A {n}.", "label": n < 2} for n in range(12)]
    found = data.read(write(tmp_path, verdicts))
    assert examples.describe(found) == {"good": 2, "bad": 10}
    assert "(stage.desirable_weight) of 5" in examples.cautions(examples.describe(found))[0]


def test_the_terminal_shows_both_sides(
    home: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, [LAYOUTS["columns"]])
    assert main(["inspect", path, "--model", str(tiny_model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stages"] == ["dpo", "orpo", "reward"]
    assert told["compared"]["pairs"] == 1
    assert main(["preview", path, "--row", "1", "--model", str(tiny_model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for side, answer in ((told, "The first."), (told["rejected"], "Neither of them.")):
        trained = "".join(token["text"] for token in side["tokens"] if token["trained"])
        assert trained.startswith(answer)
        assert "".join(token["text"] for token in side["tokens"]) == side["text"]
    assert main(["preview", path, "--row", "1", "--model", str(tiny_model)]) == 0
    text = capsys.readouterr().out
    assert "chosen:" in text
    assert "rejected:" in text
    assert main(["inspect", path, "--model", str(tiny_model)]) == 0
    assert "stage dpo or orpo" in capsys.readouterr().out
