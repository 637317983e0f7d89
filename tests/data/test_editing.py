"""The data editor without a page: operations on rows, undo, the new file, what a run says of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import config, data, run
from studio.data.editing import scan
from studio.data.editing.cells import cells
from studio.data.editing.fixes import FIXES, apply_fix
from studio.data.editing.log import Edits, StaleError, pending
from studio.data.editing.operations import operation
from studio.data.editing.record import record_of
from studio.data.editing.saving import save
from studio.errors import DataError
from studio.export.card import card
from studio.export.report import report
from studio.home import PROJECT

Row = dict[str, Any]
ALPACA = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n} is here."} for n in range(1, 13)]


def talk(*said: str) -> Row:
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def edits_of(path: Path) -> Edits:
    return Edits(data.read(path), "auto", None, "auto")


def rows_now(edits: Edits) -> list[Any]:
    state = edits.state()
    return [state.value(int(row)) for row in state.order]


def saved_rows(record: dict[str, Any]) -> list[Any]:
    return [json.loads(line) for line in Path(record["file"]).read_bytes().splitlines()]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- any operations, and back


PATHS = st.sampled_from([["instruction"], ["output"], ["input"], ["system"]])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
OPERATIONS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"op": st.just("set"), "row": st.integers(1, 16), "path": PATHS, "value": TEXT}),
        st.fixed_dictionaries({"op": st.just("delete"), "rows": st.lists(st.integers(1, 16), min_size=1, max_size=3)}),
        st.fixed_dictionaries(
            {
                "op": st.just("add"),
                "after": st.integers(0, 16),
                "value": st.just({"instruction": "New?", "output": "Yes."}),
            }
        ),
        st.fixed_dictionaries(
            {
                "op": st.just("replace"),
                "find": st.sampled_from(["Answer", "e", "1", "."]),
                "put": TEXT,
                "case": st.booleans(),
            }
        ),
        st.fixed_dictionaries({"op": st.just("fix"), "kind": st.just("duplicate"), "way": st.just("delete")}),
        st.sampled_from([{"op": "undo"}, {"op": "redo"}]),
    ),
    max_size=8,
)


class Model:
    """What the rows should be, kept whole: a list of [number, row] that every operation copies."""

    def __init__(self, rows: list[Row]):
        self.past: list[tuple[list[list[Any]], int]] = [([[n, row] for n, row in enumerate(rows, 1)], len(rows) + 1)]
        self.future: list[tuple[list[list[Any]], int]] = []

    def do(self, step: dict[str, Any]) -> None:
        if step["op"] == "undo":
            self.future.append(self.past.pop())
            return
        if step["op"] == "redo":
            self.past.append(self.future.pop())
            return
        rows, free = [list(pair) for pair in self.past[-1][0]], self.past[-1][1]
        if step["op"] == "set":
            next(pair for pair in rows if pair[0] == step["row"])[1] = {
                **dict(rows)[step["row"]],
                step["path"][0]: step["value"],
            }
        elif step["op"] == "delete":
            rows = [pair for pair in rows if pair[0] not in step["rows"]]
        elif step["op"] == "add":
            at = next((n + 1 for n, pair in enumerate(rows) if pair[0] == step["after"]), 0)
            rows.insert(at, [free, step["value"]])
            free += 1
        elif step["op"] == "replace":
            rows = [[n, {key: self.replace_text(step, text) for key, text in row.items()}] for n, row in rows]
        self.past.append((rows, free))
        self.future = []

    @staticmethod
    def replace_text(step: dict[str, Any], text: str) -> str:
        if step["case"]:
            return text.replace(step["find"], step["put"])
        return step["put"].join(_split(text, step["find"]))

    @property
    def rows(self) -> list[Row]:
        return [row for _, row in self.past[-1][0]]


def _split(text: str, find: str) -> list[str]:
    """str.split that takes no account of the case of ASCII letters."""
    parts, at, low = [], 0, "".join(sign.lower() if sign.isascii() else sign for sign in text)
    while (place := low.find(find.lower(), at)) >= 0:
        parts.append(text[at:place])
        at = place + len(find)
    return [*parts, text[at:]]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=OPERATIONS)
def test_any_operations_do_as_a_plain_list_would_and_undo_gives_the_file_back(
    steps: list[dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    rows = [*ALPACA, ALPACA[0] | {"instruction": uuid.uuid4().hex}]  # its edits are kept by content: a file of its own
    file = written(tmp_path / "rows.jsonl", rows)
    before, edits, model = digest(file), edits_of(file), Model(rows)
    for step in steps:
        if step.get("kind"):
            step = {"op": "undo"}  # no row stands twice in this file
        try:
            edits.change(step)
        except DataError:
            continue
        model.do(step)
        assert rows_now(edits) == model.rows
    if edits.state().steps and model.rows:
        record = save(edits)
        assert saved_rows(record) == model.rows
        Path(record["file"]).unlink()
    else:
        while edits.state().steps:
            edits.change({"op": "undo"})
    assert rows_now(edits_of(file)) == rows
    assert digest(file) == before


def test_undo_and_redo_step_by_step(home: Path, tmp_path: Path) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", ALPACA))
    shown = [rows_now(edits)]
    for step in (
        {"op": "set", "row": 2, "path": ["output"], "value": "Two."},
        {"op": "delete", "rows": [1, 3]},
        {"op": "add", "after": 2, "value": ALPACA[0]},
        {"op": "replace", "find": "Question", "put": "Q"},
    ):
        edits.change(step)
        shown.append(rows_now(edits))
    for expected in shown[-2::-1]:
        edits.change({"op": "undo"})
        assert rows_now(edits) == expected
    for expected in shown[1:]:
        edits.change({"op": "redo"})
        assert rows_now(edits) == expected
    edits.change({"op": "discard"})
    assert rows_now(edits) == ALPACA
    for _ in range(4):
        edits.change({"op": "redo"})
    assert rows_now(edits) == shown[-1]
    edits.change({"op": "undo"})
    edits.change({"op": "delete", "rows": [5]})
    with pytest.raises(DataError, match="nothing to do again"):
        edits.change({"op": "redo"})


# -- the file


def test_the_new_file_is_the_rows_shown_and_the_upload_stays(home: Path, tmp_path: Path) -> None:
    rows = [*ALPACA, {**ALPACA[0], "id": 10**25, "score": float("nan"), "half": "\ud83d"}]
    file = written(tmp_path / "my rows.jsonl", rows)
    before, edits = digest(file), edits_of(file)
    edits.change({"op": "set", "row": 1, "path": ["output"], "value": "Éin 答え."})
    edits.change({"op": "delete", "rows": [2]})
    shown = rows_now(edits)
    first = save(edits)
    assert Path(first["file"]).name == "my-rows.edited.jsonl"
    assert repr(saved_rows(first)) == repr(shown)
    assert (digest(file), digest(Path(first["file"]))) == (before, first["sha256"])
    assert first["counts"] == {"cells": 1, "deleted": 1}
    again = edits_of(file)
    assert not again.state().steps
    again.change({"op": "delete", "rows": [1]})
    assert Path(save(again)["file"]).name == "my-rows.edited-2.jsonl"
    chained = edits_of(Path(first["file"]))
    chained.change({"op": "delete", "rows": [1]})
    third = save(chained)
    assert Path(third["file"]).name == "my-rows.edited-3.jsonl"
    assert third["earlier"]["from"]["source"] == "my rows.jsonl"


@pytest.mark.parametrize("shape", ["csv", "json", "turns", "text", "parquet", "gzip"])
def test_every_layout_is_edited_as_it_stands(home: Path, tmp_path: Path, shape: str) -> None:
    """The unchanged rows of the new file are read as the old file's are."""
    if shape == "csv":
        file = tmp_path / "rows.csv"
        with open(file, "w", newline="", encoding="gb18030") as out:
            table = csv.writer(out)
            table.writerow(["instruction", "output"])
            table.writerows([f"问题 {n}，是什么？", f"回答\n第 {n} 行。"] for n in range(30))
    elif shape == "json":
        file = tmp_path / "rows.json"
        file.write_text(json.dumps({"data": ALPACA}))
    elif shape == "turns":  # a turn a row, gathered into conversations
        turns = [
            {"conversation_id": n // 2, "role": ("user", "assistant")[n % 2], "content": f"Turn {n}."}
            for n in range(24)
        ]
        file = written(tmp_path / "rows.jsonl", turns)
    elif shape == "text":
        file = tmp_path / "rows.txt"
        file.write_text("First paragraph\nof two lines.\n\nSecond one.\n\nThird one.\n")
    elif shape == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist([talk("Hi?", f"Hello {n}.") for n in range(9)]), file)
    else:
        import gzip

        file = tmp_path / "rows.jsonl.gz"
        file.write_bytes(
            gzip.compress("".join(json.dumps(talk("Hi?", f"Yes {n}.")["messages"]) + "\n" for n in range(9)).encode())
        )
    old = data.read(file)
    edits = edits_of(file)
    cell = next(cells(edits.state().value(1)))
    edits.change({"op": "set", "row": 1, "path": list(cell.path), "value": "Changed here."})
    new = data.read(save(edits)["file"])
    assert new.format == old.format
    assert new.rows == old.rows
    told = [[{k: v for k, v in one.items() if k != "line"} for one in found.conversations] for found in (old, new)]
    assert told[0][1:] == told[1][1:]
    assert "Changed here." in json.dumps(told[1][0])


def test_rows_that_are_no_data_are_written_anew_or_left_out_and_said(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = ['{"prompt": "A?", "completion": "B."}', '{"prompt": "C?", "completion": "D."}']
    file.write_text("\n".join([good[0], "{broken", *[good[1]] * 4, "12", "{worse"]) + "\n")
    edits = edits_of(file)
    state = edits.change({"op": "set", "row": 2, "path": [], "value": {"prompt": "E?", "completion": "F."}})
    assert not state.broken(2)
    record = save(edits)
    assert record["left_out"] == [7, 8]
    assert [row["prompt"] for row in saved_rows(record)] == ["A?", "E?", *["C?"] * 4]


def test_a_refused_row_is_mended_in_place(home: Path, tmp_path: Path) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", [talk("Hi?", "Hello."), talk("What?", "")]))
    found, table = scan.check_rows(edits.state(), [2])
    assert ("empty_field" in found.rows, table.num_rows) == (True, 0)
    state = edits.change({"op": "set", "row": 2, "path": ["messages", 1, "content"], "value": "That."})
    found, table = scan.check_rows(state, [2])
    assert (found.rows, table.num_rows) == ({}, 1)
    assert data.read(save(edits)["file"]).refused == 0


# -- checks


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"op": "set", "row": 99, "path": ["output"], "value": "x"}, "There is no row 99"),
        ({"op": "set", "row": 0, "path": ["output"], "value": "x"}, "row: Input should be greater"),
        ({"op": "set", "row": True, "path": ["output"], "value": "x"}, "row"),
        (
            {"op": "set", "row": 1, "path": ["messages", 0], "value": "x"},
            r"no field messages\[0\]; it holds instruction",
        ),
        ({"op": "set", "row": 1, "path": ["output", 3], "value": "x"}, "no field output"),
        ({"op": "set", "row": 1, "path": ["output"], "value": 7}, "holds text; int was given"),
        ({"op": "set", "row": 1, "path": ["output"], "value": "x" * 2_000_001}, "2,000,003 characters"),
        ({"op": "set", "row": 1, "path": [], "value": "x"}, "must be an object"),
        ({"op": "set", "row": 1, "path": ["a"] * 21, "value": "x"}, "path"),
        ({"op": "delete", "rows": []}, "No row is named"),
        ({"op": "delete", "rows": [1, 50]}, "There is no row 50"),
        ({"op": "add", "after": 50, "value": {"a": "b"}}, "There is no row 50"),
        ({"op": "add", "after": 0, "value": {}}, "must be an object"),
        ({"op": "replace", "find": "", "put": "x"}, "find"),
        ({"op": "replace", "find": "nowhere at all"}, "stands nowhere"),
        ({"op": "replace", "find": "(", "regex": True}, "is no pattern"),
        ({"op": "replace", "find": "x*", "regex": True}, "also finds an empty text"),
        ({"op": "replace", "find": "A(n)swer", "put": r"\2", "regex": True}, "does not fit the pattern"),
        ({"op": "fix", "kind": "unheard", "way": "mend"}, "no kind of problem named"),
        ({"op": "fix", "kind": "duplicate", "way": "mend"}, "cannot be mended"),
        ({"op": "fix", "kind": "html", "way": "mend"}, "None of its rows can be mended"),
        ({"op": "fix", "kind": "legacy_encoding", "way": "delete"}, "of the whole file"),
        ({"op": "shout"}, "not one: op"),
        ({}, "not one"),
        ({"op": "undo"}, "nothing to undo"),
        ({"op": "set", "row": 1, "path": ["output"], "value": "x", "more": 1}, "more"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words_and_not_written(
    home: Path, tmp_path: Path, step: Any, said: str
) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", ALPACA))
    with pytest.raises(DataError, match=said):
        edits.change(step)
    assert edits.state().revision == 0
    with pytest.raises(DataError, match="nothing to save"):
        save(edits)


def test_a_pattern_that_never_ends_is_stopped(home: Path, tmp_path: Path) -> None:
    edits = edits_of(
        written(tmp_path / "rows.jsonl", [*ALPACA, {"instruction": "A?", "input": "", "output": "a" * 40 + "!"}])
    )
    begun = time.process_time()
    with pytest.raises(DataError, match="takes too long"):
        edits.change({"op": "replace", "find": r"(a|aa)+$", "put": "", "regex": True})
    assert time.process_time() - begun < 20
    assert not edits.state().steps


# -- find and replace


def test_only_texts_are_replaced(home: Path, tmp_path: Path) -> None:
    call = {"function": {"name": "user", "arguments": {"user": 1}}}
    asked = {"role": "user", "name": "user", "content": "Is user a word?"}
    row = {"id": "user-1", "messages": [asked, {"role": "assistant", "content": "A user is.", "tool_calls": [call]}]}
    edits = edits_of(written(tmp_path / "rows.jsonl", [row]))
    edits.change({"op": "replace", "find": "user", "put": "human", "skip": ["id"]})
    expected = json.loads(json.dumps(row).replace("Is user", "Is human").replace("A user", "A human"))
    assert rows_now(edits) == [expected]
    edits.change({"op": "undo"})
    edits.change({"op": "replace", "find": "user", "put": "human", "only": "assistant"})
    assert rows_now(edits)[0]["messages"][0] == row["messages"][0]
    assert rows_now(edits)[0]["messages"][1]["content"] == "A human is."


def test_a_preview_says_what_is_then_done(home: Path, tmp_path: Path) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", ALPACA))
    step = operation({"op": "replace", "find": r"(\w+) (\d+)", "put": r"\2. \1", "regex": True})
    hits = scan.find(edits.state(), step)
    assert (len(hits.rows), hits.matches, hits.after) == (12, 24, None)
    assert [part for part in hits.examples[0]["parts"] if part[0] != "same"] == [
        ["old", "Question 1"],
        ["new", "1. Question"],
    ]
    state = edits.change(step.model_dump())
    assert state.counts() == {"replaced": 12, "replacements": 24}
    assert state.value(3)["output"] == "3. Answer is here."


def test_a_row_added_later_is_not_replaced_in(home: Path, tmp_path: Path) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", ALPACA))
    edits.change({"op": "replace", "find": "Answer", "put": "Reply"})
    edits.change({"op": "add", "after": 0, "value": ALPACA[0]})
    assert rows_now(edits)[0] == ALPACA[0]
    assert rows_now(edits)[1]["output"].startswith("Reply")


# -- fixes

FAULTY = {
    "crlf": (talk("One\r\ntwo?", "Yes\rno."), talk("One\ntwo?", "Yes\nno.")),
    "nul": (talk("One\x00?", "Yes\x07."), talk("One?", "Yes.")),
    "literal_break": (talk("One?", "Yes.\\n\\n- No."), talk("One?", "Yes.\n\n- No.")),
    "literal_escape": (talk("Une?", "Une \\u00e9t\\u00e9."), talk("Une?", "Une été.")),
    "bom": (talk("\ufeffOne?", "Yes."), talk("One?", "Yes.")),
    "mojibake": (talk("CafÃ©?", "Itâ€™s â€œfineâ€\x9d, naïve Ã¼ber."), talk("Café?", "It’s “fine”, naïve über.")),
    "html": (talk("<p>One</p> &amp; `<b>`?", "<b>Yes</b>.<br>No."), talk("One\n & `<b>`?", "Yes.\nNo.")),
    "control_token": (talk("One?", "Yes.<|im_end|></s>"), talk("One?", "Yes.")),
    "media": (talk("<image>\nOne?", "Yes."), talk("One?", "Yes.")),
    "secret": (talk("One?", "Write to a.b@example.com now."), talk("One?", "Write to [removed] now.")),
    "empty_field": (talk("One?", "Yes.", "", ""), talk("One?", "Yes.")),
    "role_order": (
        {"messages": [{"role": "user", "content": "One."}, *talk("Two?", "Yes.")["messages"]]},
        talk("One.\n\nTwo?", "Yes."),
    ),
    "no_end": (talk("One?", "Yes.", "And?"), talk("One?", "Yes.")),
    "assistant_first": (
        {"messages": [{"role": "assistant", "content": "Hi."}, *talk("One?", "Yes.")["messages"]]},
        talk("One?", "Yes."),
    ),
}


def test_every_way_to_mend_is_tried_here() -> None:
    assert set(FAULTY) == set(FIXES)


@pytest.mark.parametrize("kind", FAULTY)
def test_a_kind_of_problem_is_mended_in_all_its_rows(home: Path, tmp_path: Path, kind: str) -> None:
    """After the fix the checks of the import find the kind no more, and other rows are as they were."""
    faulty, right = FAULTY[kind]
    good = [talk(f"Say the number {n}.", f"It is {n * 7919}.") for n in range(4)]
    other = json.loads(json.dumps(faulty).replace("One", "Three"))
    file = written(tmp_path / "rows.jsonl", [good[0], faulty, *good[1:], other])
    assert data.read(file).counts[kind] == 2
    edits = edits_of(file)
    step = {"op": "fix", "kind": kind, "way": "mend"}
    hits = scan.fix(edits.state(), edits.dataset, operation(step))
    assert hits.rows == [2, 6]
    assert all(any(part[0] != "same" for part in one["parts"]) for one in hits.examples)
    edits.change(step)
    assert rows_now(edits)[1] == right
    assert [rows_now(edits)[n] for n in (0, 2, 3, 4)] == good
    with pytest.raises(DataError):
        edits.change(step)
    assert kind not in data.read(save(edits)["file"]).counts


@pytest.mark.parametrize("kind", FAULTY)
def test_mending_a_sound_row_changes_nothing(kind: str) -> None:
    row = talk("Was ist „das“, naïve Ångström?", "Zwei Zeilen:\n- größer < kleiner")
    assert apply_fix(kind, row) is row


def test_deleting_the_rows_of_a_kind_spares_those_that_were_mended(home: Path, tmp_path: Path) -> None:
    rows = [talk("Hi?", "Hello."), talk("A?", ""), talk("B?", ""), talk("C?", "")]
    edits = edits_of(written(tmp_path / "rows.jsonl", rows))
    edits.change({"op": "set", "row": 3, "path": ["messages", 1, "content"], "value": "Yes."})
    edits.change({"op": "fix", "kind": "empty_field", "way": "delete"})
    assert rows_now(edits) == [rows[0], talk("B?", "Yes.")]


def test_of_repeats_one_is_always_left(home: Path, tmp_path: Path) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", [ALPACA[0], ALPACA[1], ALPACA[0], ALPACA[0], ALPACA[1]]))
    edits.change({"op": "delete", "rows": [1]})  # the one that the others repeat
    edits.change({"op": "fix", "kind": "duplicate", "way": "delete"})
    assert rows_now(edits) == [ALPACA[1], ALPACA[0]]


# -- several at once, and crashes


def test_the_older_of_two_tabs_is_told_and_nothing_is_lost(home: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", ALPACA)
    one, other = edits_of(file), edits_of(file)
    one.change({"op": "set", "row": 1, "path": ["output"], "value": "From one."}, revision=0)
    with pytest.raises(StaleError, match="changed in another tab"):
        other.change({"op": "set", "row": 1, "path": ["output"], "value": "From the other."}, revision=0)
    with pytest.raises(StaleError):
        save(other, revision=0)
    other.change({"op": "set", "row": 2, "path": ["output"], "value": "From the other."}, revision=1)
    assert [row["output"] for row in rows_now(one)[:2]] == ["From one.", "From the other."]


def test_a_line_that_was_begun_when_the_page_was_killed_does_not_count(home: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", ALPACA)
    edits = edits_of(file)
    edits.change({"op": "delete", "rows": [1]})
    with open(edits.file, "ab") as log:
        log.write(b'{"op": "delete", "ro')
    again = edits_of(file)
    assert len(rows_now(again)) == 11
    again.change({"op": "delete", "rows": [2]}, revision=1)
    assert len(rows_now(edits_of(file))) == 10
    assert pending(again.dataset.fingerprint) == 2


SAVING = """
import sys
from studio import data
from studio.data.editing.log import Edits
from studio.data.editing.saving import save
save(Edits(data.read(sys.argv[1]), "auto", None, "auto"))
"""


@pytest.mark.parametrize("point", ["edit.written", "whole.written"])
def test_a_kill_while_saving_leaves_no_half_file_and_the_edits(home: Path, tmp_path: Path, point: str) -> None:
    file = written(tmp_path / "rows.jsonl", ALPACA)
    edits_of(file).change({"op": "delete", "rows": [1]})
    environment = {**os.environ, "STUDIO_CRASH_AT": point, "PYTHONPATH": str(PROJECT)}
    died = subprocess.run([sys.executable, "-c", SAVING, str(file)], env=environment, cwd=PROJECT, capture_output=True)
    assert died.returncode == -9, died.stderr
    assert not [path for path in (home / "uploads").iterdir() if not path.name.startswith(".")]
    record = save(edits_of(file))
    assert saved_rows(record) == ALPACA[1:]
    assert Path(record["file"]).name == "rows.edited.jsonl"


def test_rows_laid_out_go_after_a_day_and_the_changes_stay(home: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", ALPACA)
    edits = edits_of(file)
    edits.change({"op": "delete", "rows": [1]})
    os.utime(edits.folder / "rows", (0, 0))
    edits_of(written(tmp_path / "other.jsonl", ALPACA[1:]))
    assert not (edits.folder / "rows").exists()
    assert rows_now(edits_of(file)) == ALPACA[1:]


def test_the_same_operations_give_the_same_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "rows.jsonl", [*ALPACA, ALPACA[0]])
    steps = [
        {"op": "replace", "find": "[0-9]+", "put": r"<\g<0>>", "regex": True},
        {"op": "delete", "rows": [4]},
        {"op": "add", "after": 2, "value": ALPACA[3]},
        {"op": "fix", "kind": "duplicate", "way": "delete"},
    ]
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("STUDIO_HOME", str(tmp_path / name))
        edits = edits_of(file)
        for step in steps[:3]:
            edits.change(step)
        made.append(save(edits))
    assert made[0]["sha256"] == made[1]["sha256"]
    assert made[0]["log"] == made[1]["log"]


# -- what is said of it


def test_a_runs_record_its_card_and_report_say_what_was_edited(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    edits = edits_of(written(tmp_path / "rows.jsonl", ALPACA))
    edits.change({"op": "set", "row": 1, "path": ["output"], "value": "One."})
    edits.change({"op": "delete", "rows": [2, 3]})
    record = save(edits)
    Path(record["file"]).rename(tmp_path / "renamed.jsonl")
    one = run.create(config.build({"model": str(tiny_model), "data": {"train": str(tmp_path / "renamed.jsonl")}}))
    said = "edited from rows.jsonl: 1 cell, 2 rows deleted"
    assert [found["text"] for found in run.summary(one)["edited"]] == [said]
    assert said in card(one)
    assert said in report(one)
    kept = json.loads((one.folder / "edited.json").read_text())
    assert kept[0]["log"][1] == {"op": "delete", "rows": [2, 3]}
    assert kept[0]["sha256"] == record["sha256"]
    plain = run.create(config.build({"model": str(tiny_model), "data": {"train": str(tmp_path / "rows.jsonl")}}))
    assert run.summary(plain)["edited"] == []
    (tmp_path / "renamed.jsonl").write_text((tmp_path / "renamed.jsonl").read_text().replace("One.", "Two."))
    assert record_of(tmp_path / "renamed.jsonl") is None


def test_from_a_terminal(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from studio.__main__ import main

    file, out = written(tmp_path / "rows.jsonl", ALPACA), tmp_path / "new.jsonl"
    before = digest(file)
    ops = written(
        tmp_path / "ops.jsonl",
        [{"op": "set", "row": 3, "path": ["output"], "value": "Three."}, {"op": "delete", "rows": [1]}],
    )
    assert main(["edit", str(file), "--ops", str(ops), "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["file"], answer["rows"], answer["counts"]) == (str(out), 11, {"cells": 1, "deleted": 1})
    assert json.loads(out.read_text().splitlines()[1])["output"] == "Three."
    assert (digest(out), digest(file)) == (answer["sha256"], before)
    assert main(["edit", str(file), "--ops", str(ops), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    written(ops, [{"op": "delete", "rows": [1]}, {"op": "delete", "rows": [1]}])
    assert main(["edit", str(file), "--ops", str(ops), "--out", str(tmp_path / "more.jsonl")]) == 2
    assert "Operation 2: Row 1 was deleted" in capsys.readouterr().err
    assert not (tmp_path / "more.jsonl").exists()
    assert main(["edit", str(file), "--ops", str(ops.with_name("none")), "--out", str(tmp_path / "more.jsonl")]) == 2


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.rare)])
def test_many_rows_answer_at_once(home: Path, tmp_path: Path, count: int) -> None:
    """Processor time of what the page asks; the limits are far above what was measured, for slow computers."""
    numbers = np.random.default_rng(1).integers(10**9, 10**10, (count, 2)).tolist()
    file = written(
        tmp_path / "rows.jsonl",
        [{"prompt": f"Add 1 to {a}.", "completion": f"It is {b}, said the clerk."} for a, b in numbers],
    )
    edits = edits_of(file)
    edits.change({"op": "delete", "rows": [5]})
    edits.change({"op": "set", "row": count - 1, "path": ["completion"], "value": "Here."})
    begun = time.process_time()
    state = edits_of(file).state()
    shown = list(scan.pages(state, state.order, count - 1000, 20))
    assert time.process_time() - begun < 15
    assert shown[0][0] == count - 998
    begun, at, found = time.process_time(), 0, 0
    while at is not None:
        begun = time.process_time()
        hits = scan.find(state, operation({"op": "replace", "find": "SAID", "put": "told", "case": False}), at, 0.2)
        assert time.process_time() - begun < 10
        at, found = hits.after, found + len(hits.rows)
    assert found == count - 2
