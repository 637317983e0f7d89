"""The data editor's questions and jobs: what is answered, what is refused, and to whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.errors import OrderError, StudioError
from studio.ui import data, data_edit, rights, who
from studio.ui.live import json_response
from studio.ui.who import NOBODY, OWNER, VISITOR, WATCHER


@pytest.fixture
def question(tmp_path: Path, home: Path, tiny_model: Path) -> dict[str, Any]:
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Answer {n}."}]}
        for n in range(1, 46)
    ]
    rows[3]["messages"][1]["content"] = ""
    rows[8]["messages"][1]["content"] = "Yes\r\nno."
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    return {"order": {"model": str(tiny_model), "data": {"train": str(file), "max_length": 60}}, "lang": "en"}


def change(question: dict[str, Any], **step: Any) -> dict[str, Any]:
    seen = data_edit.edit_rows(question)["revision"]
    return data_edit.data_edit(question | {"revision": seen, "change": step})


def test_rows_in_pages_with_the_refused_and_the_broken(question: dict[str, Any]) -> None:
    first = data_edit.edit_rows(question)
    assert (first["count"], len(first["rows"]), first["changes"], first["unreadable"]) == (46, 20, 0, 1)
    assert first["rows"][3] == {"row": 4, "text": "Question 4?", "fault": True, "added": False, "changed": False}
    assert first["roles"] == ["user", "assistant"]
    last = data_edit.edit_rows(question | {"start": 40})["rows"]
    assert last[-1]["text"] == "{broken"
    assert data_edit.edit_rows(question | {"around": 33})["start"] == 20
    assert [one["row"] for one in data_edit.edit_rows(question | {"kind": "crlf"})["rows"]] == [9]
    assert data_edit.edit_rows(question | {"start": 10**9})["rows"] == []
    assert data_edit.edit_rows(question | {"start": "x", "kind": None, "around": True})["count"] == 46


def test_a_row_whole_with_its_verdict_and_tokens(question: dict[str, Any]) -> None:
    row = data_edit.edit_row(question | {"row": 2})
    assert row["lists"] == [{"path": ["messages"], "who": "role", "said": "content"}]
    assert row["problems"] == []
    assert row["tokens"] == data.preview(question | {"row": 2})["tokens"]
    refused = data_edit.edit_row(question | {"row": 4})
    assert refused["refused"]
    assert refused["problems"][0]["kind"] == "empty_field"
    broken = data_edit.edit_row(question | {"row": 46})
    assert (broken["value"], broken["text"], broken["refused"]) == (None, "{broken", True)
    assert "error" in data_edit.edit_row(question | {"row": 47})


def test_changes_and_what_undo_would_do(question: dict[str, Any]) -> None:
    told = change(question, op="set", row=4, path=["messages", 1, "content"], value="Four.")
    assert (told["changes"], told["undo"], told["row"]) == (1, {"op": "set", "row": 4, "field": "messages"}, 4)
    assert "refused" not in data_edit.edit_row(question | {"row": 4})
    told = change(question, op="add", after=4, value={"messages": [{"role": "user", "content": "x"}]})
    assert told["row"] == 47
    assert [one["row"] for one in data_edit.edit_rows(question)["rows"]][3:6] == [4, 47, 5]
    assert change(question, op="undo")["redo"]["op"] == "add"
    assert data.inspect(question)["edits"] == 1
    assert change(question, op="discard")["changes"] == 0


def test_a_replacement_is_asked_first(question: dict[str, Any]) -> None:
    asked = question | {"find": "answer", "put": "Reply", "case": False, "start": 0}
    found = data_edit.edit_find(asked)
    assert (found["rows"], found["matches"], found["after"], len(found["examples"])) == (43, 43, None, 30)
    assert data_edit.edit_find(asked | {"only": "user"})["rows"] == 0
    assert "is no pattern" in data_edit.edit_find(asked | {"find": "(", "regex": True})["error"]["message"]
    assert (
        "不是有效的表达式"
        in data_edit.edit_find(asked | {"find": "(", "regex": True, "lang": "zh"})["error"]["message"]
    )
    assert "error" in data_edit.edit_find(asked | {"find": ["x"]})
    assert change(question, op="replace", find="answer", put="Reply", case=False)["counts"]["replacements"] == 43


def test_a_fix_is_asked_first(question: dict[str, Any]) -> None:
    found = data_edit.edit_fix(question | {"kind": "crlf", "way": "mend"})
    assert (found["rows"], found["examples"][0]["row"]) == (1, 9)
    assert "error" in data_edit.edit_fix(question | {"kind": "crlf", "way": "burn"})
    kinds = {one["kind"]: one for one in data.inspect(question)["problems"]}
    assert (kinds["crlf"]["mend"], kinds["not_json"]["mend"], kinds["not_json"]["delete"]) == (
        "End lines with LF",
        None,
        True,
    )
    change(question, op="fix", kind="not_json", way="delete")
    assert data_edit.edit_rows(question)["unreadable"] == 0
    assert kinds["empty_field"]["mend"] == "Drop empty turns"
    flat = Path(question["order"]["data"]["train"]).with_name("flat.jsonl")
    flat.write_text('{"instruction": "Why?", "output": "So."}\n{"instruction": "Why not?", "output": ""}\n')
    (problem,) = data.inspect({"order": {"data": {"train": str(flat)}}})["problems"]
    assert (problem["kind"], problem["mend"]) == ("empty_field", None)  # it has no turns to drop


def test_a_row_of_odd_values_is_shown_and_what_was_typed_is_kept(question: dict[str, Any]) -> None:
    file = Path(question["order"]["data"]["train"]).with_name("odd.jsonl")
    file.write_text(
        r'{"instruction": "Half \ud83d", "output": "a\r\nb", "n": 123456789012345678901, "x": [1.0, NaN]}' + "\n"
    )
    odd = {**question, "order": {**question["order"], "data": {"train": str(file)}}}
    shown = data_edit.edit_row(odd | {"row": 1})
    assert json.loads(shown["texts"]['["n"]']) == 123456789012345678901
    assert shown["texts"]['["x"]'].split() == ["[", "1.0,", "NaN", "]"]
    assert json.loads(json_response(shown).body)["value"]["x"] == [1.0, None]
    assert json_response(data_edit.edit_rows(odd)).status_code == 200
    change(odd, op="set", row=1, path=["output"], typed="a\nb!")
    seen = data_edit.edit_rows(odd)
    assert data_edit.edit_row(odd | {"row": 1})["value"]["output"] == "a\r\nb!"
    file.write_text('{"instruction": "Another?", "output": "Yes."}\n')
    with pytest.raises(StudioError, match="written anew"):
        data_edit.data_edit(odd | {"revision": 0, "fingerprint": seen["fingerprint"], "change": {"op": "discard"}})


def test_the_new_file_takes_over(question: dict[str, Any], home: Path) -> None:
    change(question, op="delete", rows=[1])
    seen = data_edit.edit_rows(question)["revision"]
    with pytest.raises(StudioError, match="another tab"):
        data_edit.data_save(question | {"revision": seen - 1})
    made = data_edit.data_save(question | {"revision": seen})
    assert (made["name"], made["rows"], made["left_out"], made["mapping"]) == ("talks.edited.jsonl", 44, 1, None)
    assert Path(made["source"]).parent == home / "uploads"
    after = data.inspect({**question, "order": {**question["order"], "data": {"train": made["source"]}}})
    assert after["made"]["text"] == "edited from talks.jsonl: 1 row deleted"
    assert data.inspect(question)["edits"] == 0


def test_an_entry_of_dataset_info_keeps_its_columns(tmp_path: Path, home: Path, tiny_model: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"q": f"Question {n}?", "a": f"Answer {n}."} for n in range(5)]))
    entry = {"file_name": "q.json", "columns": {"prompt": "q", "response": "a"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    question = {"order": {"model": str(tiny_model), "data": {"train": f"{tmp_path}/dataset_info.json:mine"}}}
    change(question, op="delete", rows=[1])
    made = data_edit.data_save(question | {"revision": 1})
    after = data.inspect({"order": {"data": {"train": made["source"], "mapping": made["mapping"]}}})
    assert after["rows"] == after["kept"] == 4


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"order": None},
        {"order": {"data": {}}},
        {"order": {"data": {"train": "/no/such/file.jsonl"}}},
        {"revision": None},
        {"change": 5},
        {"change": {}},
        {"revision": True},
    ],
)
def test_what_is_no_question_is_refused(question: dict[str, Any], given: dict[str, Any]) -> None:
    asked = {"revision": 0, "change": {"op": "delete", "rows": [1]}, **question, **given} if given else {}
    with pytest.raises(StudioError):
        data_edit.data_edit(asked)


def test_files_outside_the_home_are_refused_where_others_can_reach_the_page(
    question: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_PUBLIC", "1")
    assert "outside" in data_edit.edit_rows(question)["error"]["message"]
    for job in (data_edit.data_edit, data_edit.data_save):
        with pytest.raises(OrderError, match="outside"):
            job(question | {"revision": 0, "change": {"op": "delete", "rows": [1]}})


def test_only_the_owner_sees_and_does_it(question: dict[str, Any]) -> None:
    for function in (each for reads in (True, False) for each in rights.declared_in(data_edit, reads=reads)):
        assert rights.roles_of(function) == {OWNER}
        assert not any(rights.allows(function, role) for role in (NOBODY, WATCHER, VISITOR))
    change(question, op="delete", rows=[1])
    with who.acting_as(who.Requester(WATCHER, "", True)):
        assert data.inspect(question).get("edits", 0) == 0
