"""Every fixture file is recognised from its content, without a typed mapping, and read into the right conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio import data
from studio.data.dataset_info import from_dataset_info
from studio.data.formats import formats
from studio.errors import DataError
from studio.home import PROJECT
from tests.data.fixtures import ALPACA, FIXTURES, QA, Fixture, as_lines, as_table, two

SHARED = PROJECT.parent / "shared" / "data"  # public demo data beside the checkout, where there is some


def write(folder: Path, name: str, content: bytes | list) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else as_lines(content))
    return path


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.name)
def test_detected(fixture: Fixture, home: Path, tmp_path: Path) -> None:
    found = data.read(write(tmp_path, fixture.name, fixture.content()))
    assert (found.format, found.container, len(found.conversations)) == (
        fixture.format,
        fixture.container,
        fixture.rows,
    )
    assert not found.refused
    first = found.conversations[0]
    said = first.get("text") or next(m["content"] for m in first["messages"] if m["role"] == "assistant")
    assert first["row"] == 1
    if fixture.format != "alpaca" or "history" not in fixture.name:
        assert said == fixture.answer


def test_there_are_at_least_24_over_all_formats() -> None:
    assert len(FIXTURES) >= 24
    assert {f.format for f in FIXTURES} == set(formats()) - {
        "chosen",
        "good",
        "prompts",
        "transcript",
    }  # those are ordered, not recognised


def test_no_name_is_believed(home: Path, tmp_path: Path) -> None:
    for fixture in FIXTURES[:12]:
        found = data.read(write(tmp_path, "file.bin", fixture.content()))
        assert (found.format, found.container) == (fixture.format, fixture.container)


def test_alpaca_keeps_instruction_and_input_apart(home: Path, tmp_path: Path) -> None:
    turn = data.read(
        write(tmp_path, "a.jsonl", [{"instruction": "Translate.", "input": "dog", "output": "Hund"}])
    ).conversations[0]["messages"][0]
    assert turn == {"role": "user", "content": "Translate.\ndog", "instruction": "Translate.", "input": "dog"}


def test_history_and_system_become_turns(home: Path, tmp_path: Path) -> None:
    row = {
        "instruction": "And then?",
        "input": "",
        "output": "Home.",
        "system": "Be brief.",
        "history": [["Where to?", "School."]],
    }
    said = [
        (m["role"], m["content"]) for m in data.read(write(tmp_path, "a.jsonl", [row])).conversations[0]["messages"]
    ]
    assert said == [
        ("system", "Be brief."),
        ("user", "Where to?"),
        ("assistant", "School."),
        ("user", "And then?"),
        ("assistant", "Home."),
    ]


def test_tools_are_kept(home: Path, tmp_path: Path) -> None:
    fixture = next(f for f in FIXTURES if f.name == "tools.jsonl")
    conversation = data.read(write(tmp_path, "t.jsonl", fixture.content())).conversations[0]
    assert conversation["tools"][0]["function"]["name"] == "weather"
    assert conversation["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"
    assert [m["role"] for m in conversation["messages"]] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("said", "role"),
    [("human", "user"), ("User", "user"), ("gpt", "assistant"), ("bot", "assistant"), ("observation", "tool")],
)
def test_sharegpt_spellings(said: str, role: str, home: Path, tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Hi there"},
        {"from": "gpt", "value": "Hello"},
        {"from": said, "value": "More"},
        {"from": "gpt", "value": "End"},
    ]
    turns = (
        turns[2:] if role == "user" else [turns[0], {"from": said, "value": "More"}] if role == "assistant" else turns
    )
    conversation = data.read(write(tmp_path, "s.jsonl", [{"conversations": turns}])).conversations[0]
    assert next(m["role"] for m in conversation["messages"] if m["content"] == "More") == role


def test_mapping_by_hand(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", as_table(two(("frage", "antwort"))))
    with pytest.raises(DataError, match="frage"):
        data.read(path)
    found = data.read(path, mapping={"prompt": "frage", "answer": "antwort"})
    assert [m["content"] for m in found.conversations[1]["messages"]] == list(QA[1])
    with pytest.raises(DataError, match="no column 'antwrot'"):
        data.read(path, mapping={"prompt": "frage", "answer": "antwrot"})
    with pytest.raises(DataError, match="'promt'"):
        data.read(path, mapping={"promt": "frage"})


def test_a_dataset_info_entry_is_a_mapping(home: Path, tmp_path: Path) -> None:
    write(
        tmp_path,
        "rows.jsonl",
        [{"dialog": [{"speaker": "kunde", "said": q}, {"speaker": "wir", "said": a}]} for q, a in QA],
    )
    tags = {"role_tag": "speaker", "content_tag": "said", "user_tag": "kunde", "assistant_tag": "wir"}
    entry = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "dialog"}, "tags": tags}
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"mine": entry}))
    source, mapping = from_dataset_info(info, "mine")
    assert [m["content"] for m in data.read(source, mapping=mapping).conversations[0]["messages"]] == list(QA[0])
    with pytest.raises(DataError, match="no entry named 'other'"):
        from_dataset_info(info, "other")


def test_preference_data_is_offered_only_where_it_can_be_used(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", next(f for f in FIXTURES if f.name == "pairs.jsonl").content())
    assert data.read(path).stage == "preference"
    assert data.read(path, "chosen").stage == "sft"
    assert data.read(path, "chosen").conversations[0]["messages"][-1]["content"] == QA[0][1]


@pytest.mark.parametrize("empty", ["", None, "  ", []])
def test_chosen_answers_are_learnt_where_no_answer_is_rejected(empty: object, home: Path, tmp_path: Path) -> None:
    """The hint took prompt and chosen for columns to be named, and data.format: chosen refused the rows as well."""
    rows = [{"prompt": f"Q {n}?", "chosen": f"A {n}.", "rejected": empty} for n in range(3)]
    path = write(tmp_path, "p.jsonl", rows)
    with pytest.raises(DataError, match="None of the 3 rows .* rejected") as refused:
        data.read(path)
    assert "data.format: chosen" in refused.value.hint
    learnt = data.read(path, "chosen").conversations
    assert [row["messages"][-1]["content"] for row in learnt] == ["A 0.", "A 1.", "A 2."]


def _said(*contents: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, contents, strict=False)]


CHOSEN_SIDE = _said("Question 1?", "Answer 1.", "Question 2?", "Answer 2.")
BAD_END = _said("", "Bad 2.")[1:]
OTHER_SIDES: dict[str, dict[str, object]] = {
    "parts early": {"rejected": _said("Question 1?", "Bad 1.", "Question 3?", "Bad 3.")},
    "shorter, beside its prompt": {"prompt": "Question 1?", "rejected": _said("Question 1?", "Bad 1.")},
    "none, beside its prompt": {"prompt": "Question 1?", "rejected": []},
    "the prompt is its beginning": {"prompt": CHOSEN_SIDE[:1], "rejected": [*CHOSEN_SIDE[:3], *BAD_END]},
    "the last answer as text": {"prompt": "Question 1?", "rejected": "Bad 2."},
    "the prompt is not in it": {
        "prompt": "Question 1?", "chosen": CHOSEN_SIDE[1:], "rejected": [*CHOSEN_SIDE[1:3], *BAD_END],
    },
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_SIDES)
def test_every_turn_of_the_chosen_side_is_learnt(case: str, home: Path, tmp_path: Path) -> None:
    """Where the sides part early the row was refused; beside a prompt inner turns were gone, or stood there twice."""
    path = write(tmp_path, "p.jsonl", [{"chosen": CHOSEN_SIDE, **OTHER_SIDES[case]}] * 2)
    assert data.read(path, "chosen").conversations[0]["messages"] == CHOSEN_SIDE
    if case in list(OTHER_SIDES)[:3]:  # no pair with one answer each
        with pytest.raises(DataError) as refused:
            data.read(path)
        assert "data.format: chosen" in refused.value.hint
    else:
        pair = data.read(path).conversations[0]
        assert (pair["messages"], pair["rejected"]) == (CHOSEN_SIDE, "Bad 2.")


def test_a_stored_data_set_opens_in_datasets(home: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = data.read(write(tmp_path, "a.jsonl", ALPACA))
    stored = datasets.load_from_disk(str(home / "datasets" / found.fingerprint))
    assert stored[1]["messages"][1]["content"] == QA[1][1]
    assert data.read(tmp_path / "a.jsonl").fingerprint == found.fingerprint


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(("name", "rows", "placeholders"), [("alpaca_en_demo.json", 999, 5), ("identity.json", 91, 85)])
def test_shared_data(name: str, rows: int, placeholders: int, home: Path) -> None:
    found = data.read(SHARED / name)
    assert (found.format, found.rows, found.refused) == ("alpaca", rows, 0)
    assert found.counts["placeholder"] == placeholders


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.json", b"", "is empty"),
        ("blank.jsonl", b" \n\n", "is empty"),
        ("prose.json", b"this is not json at all\nreally", "is not JSON"),
        ("half.json", b'[{"instruction": "a", "output": "b"}, {"instr', "not whole JSON: line 1"),
        ("columns.json", b'[{"a": 1, "b": 2}]', "a, b"),
        ("sheet.xlsx", b"PK\x03\x04rest", "ZIP or Excel"),
        ("nothing.jsonl", b'{"instruction": "a", "output": ""}\n', "None of the 1 rows"),
        ("broken.gz", b"\x1f\x8b\x08\x00broken", "damaged"),
        ("empty-list.json", b"[]", "none of the known|holds no rows"),
    ],
)
def test_hopeless_input_is_one_sentence_and_leaves_nothing(
    name: str, content: bytes, says: str, home: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=says) as refused:
        data.read(path)
    assert refused.value.hint
    assert not list((home / "datasets").glob("*")) if (home / "datasets").exists() else True


def test_a_missing_file(home: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        data.read("/nowhere/at/all.json")
