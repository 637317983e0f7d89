"""The data editor and values that a browser, or a quick parser, would change: line ends, large numbers, half signs."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio import data
from studio.data.editing import saving
from studio.data.editing.log import Edits, StaleError
from studio.data.editing.saving import save
from studio.data.editing.typed import LINE_END, blank_row, meant, with_line_ends
from studio.errors import DataError
from studio.ui.live import json_response

LONG = 123456789012345678901234
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"id": LONG, "share": 1.0}}}]}
TURNS = [{"role": "user", "content": "Look it up."}, CALL, {"role": "assistant", "content": "It is there."}]


def edits_of(file: Path, rows: list[Any]) -> Edits:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Edits(data.read(file), "auto", None, "auto")


def change(edits: Edits, typed: dict[str, Any]) -> Any:
    return edits.change(meant(typed, edits.state(), edits.dataset)).value(1)


LINES = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=6)
ENDS = st.lists(st.sampled_from(["\r\n", "\n"]), min_size=6, max_size=6)


@settings(max_examples=40)
@given(lines=LINES, ends=ENDS, other=LINES)
def test_line_ends_stay_as_they_stood(lines: list[str], ends: list[str], other: list[str]) -> None:
    before = "".join(line + end for line, end in zip(lines, [*ends[: len(lines) - 1], ""], strict=True))
    typed = "\n".join(lines)
    assert with_line_ends(typed, before) == before
    assert with_line_ends(typed + "\nx", before).startswith(before)
    assert with_line_ends("x\n" + typed, before).endswith(before)
    changed = with_line_ends("\n".join(other), before)
    assert LINE_END.split(changed) == other
    assert set(LINE_END.findall(changed)) <= {*ends[: len(lines) - 1]} | {"\n"}


def test_a_line_is_never_lost_between_a_lone_cr_and_a_lf() -> None:
    assert with_line_ends("a\nb\nc!", "a\rb\nc") == "a\rb\nc!"
    assert LINE_END.split(with_line_ends("a\n\nb", "a\rx\nb")) == ["a", "", "b"]


def test_a_turn_is_added_and_removed_and_every_digit_stays(home: Path, tmp_path: Path) -> None:
    edits = edits_of(tmp_path / "calls.jsonl", [{"messages": TURNS, "meta": {"id": LONG, "share": 1.0}}])
    row = change(edits, {"op": "insert", "row": 1, "path": ["messages", 3], "value": {"role": "user", "content": ""}})
    assert row["messages"] == [*TURNS, {"role": "user", "content": ""}]
    assert change(edits, {"op": "remove", "row": 1, "path": ["messages", 3]})["messages"] == TURNS
    text = json.dumps({"id": LONG + 1, "share": 1.0})
    assert change(edits, {"op": "set", "row": 1, "path": ["meta"], "json": text})["meta"] == json.loads(text)
    (line,) = Path(save(edits)["file"]).read_text().splitlines()
    assert line == json.dumps({"messages": TURNS, "meta": json.loads(text)})
    assert '"share": 1.0' in line


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"op": "insert", "row": 1, "path": ["messages", 4], "value": {}}, "names no place in a list"),
        ({"op": "insert", "row": 1, "path": ["meta"], "value": 1}, "names no place"),
        ({"op": "insert", "row": 1, "path": [], "value": 1}, "path"),
        ({"op": "remove", "row": 1, "path": ["messages", 3]}, "names no place"),
        ({"op": "remove", "row": 1, "path": ["none", 0]}, "names no place|no field none"),
        ({"op": "remove", "row": 1, "path": ["tags", 0]}, "the only one of its list"),
        ({"op": "set", "row": 1, "path": ["meta"], "json": '{"a": }'}, "This is no JSON: Expecting value.*column 7"),
        ({"op": "set", "row": 1, "path": ["meta"], "json": "[" * 100_000}, "nested too deeply"),
        ({"op": "set", "row": [], "path": 5, "typed": "x"}, "row"),
    ],
)
def test_what_cannot_be_done_to_a_list_is_said(home: Path, tmp_path: Path, typed: dict[str, Any], words: str) -> None:
    edits = edits_of(tmp_path / "calls.jsonl", [{"messages": TURNS, "meta": {}, "tags": ["one"]}])
    with pytest.raises(DataError, match=words):
        change(edits, typed)
    assert edits.state().revision == 0


def test_half_a_sign_is_kept_in_the_log_and_mended(home: Path, tmp_path: Path) -> None:
    edits = edits_of(tmp_path / "half.jsonl", [{"instruction": "Half \ud83d", "output": "Yes.", "n": LONG}])
    assert change(edits, {"op": "set", "row": 1, "path": ["output"], "typed": "No \ud83d."})["output"] == "No \ud83d."
    assert change(edits, {"op": "set", "row": 1, "path": ["output"], "typed": "No."}) == {
        "instruction": "Half \ud83d",
        "output": "No.",
        "n": LONG,
    }
    answer = json.loads(
        json_response({"value": edits.state().value(1), "not": float("nan"), "rows": edits.base.ends}).body
    )
    assert (answer["value"]["n"], answer["value"]["instruction"], answer["not"]) == (LONG, "Half \ud83d", None)


def test_a_row_to_add_has_the_shape_of_the_one_before_it() -> None:
    talk = [{"from": who, "value": "x"} for who in ("system", "human", "gpt", "human")]
    empty = [{"from": "human", "value": ""}, {"from": "gpt", "value": ""}]
    assert blank_row({"conversations": talk, "tools": [1], "id": "7"}, []) == {
        "conversations": empty,
        "tools": [1],
        "id": "",
    }
    assert blank_row(talk, []) == {"conversations": empty}
    assert blank_row(None, ["q", "a"]) == {"q": "", "a": ""}


def test_a_file_written_anew_under_the_editor_is_not_changed_unseen(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    before = edits_of(file, [{"instruction": "One?", "output": "1"}] * 3)
    before.change({"op": "delete", "rows": [3]}, 0, before.dataset.fingerprint)
    after = edits_of(file, [{"instruction": "Two?", "output": "2"}] * 3)
    with pytest.raises(StaleError, match="written anew") as refused:
        after.change({"op": "delete", "rows": [1]}, 0, before.dataset.fingerprint)
    assert "1 changes of the earlier rows are kept" in refused.value.hint
    with pytest.raises(StaleError, match="written anew"):
        save(after, 0, before.dataset.fingerprint)
    assert (after.state().revision, before.state().revision) == (0, 1)


def test_a_change_made_while_the_file_is_saved_is_not_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = edits_of(tmp_path / "rows.jsonl", [{"instruction": f"{n}?", "output": "Yes."} for n in range(3)])
    edits.change({"op": "delete", "rows": [3]})
    other = threading.Thread(target=edits.change, args=({"op": "delete", "rows": [1]},))
    write = saving.write

    def slow(*args: Any) -> dict[str, Any]:
        other.start()
        other.join(0.1)  # it waits
        return write(*args)

    monkeypatch.setattr(saving, "write", slow)
    assert save(edits)["rows"] == 2
    other.join(20)
    assert [step.rows for step in Edits(edits.dataset, "auto", None, "auto").state().steps] == [[1]]


@pytest.mark.parametrize("line", [b"\x00" * 40, b'{"op": "undo"}', b'{"op": "set"}', b"[]", b'{"op": []}'])
def test_a_damaged_log_is_said_with_a_way_that_works(home: Path, tmp_path: Path, line: bytes) -> None:
    edits = edits_of(tmp_path / "rows.jsonl", [{"instruction": f"{n}?", "output": "Yes."} for n in range(3)])
    edits.file.write_bytes(line + b"\n")
    with pytest.raises(DataError, match="Line 1 of the changes of this file is damaged") as refused:
        edits.state()
    assert "log.jsonl" in refused.value.hint
    edits.file.write_bytes(b"")
    assert edits.state().revision == 0
