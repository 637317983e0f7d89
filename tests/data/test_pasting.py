"""Pasted rows: what a spreadsheet, a Markdown table and lines of questions become, against csv's own writing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from studio.__main__ import main
from studio.data.pasting import read_pasted
from studio.errors import DataError

ROWS = [
    {"question": "What is 1?", "answer": "One"},
    {"question": 'A "word", a\ttab?', "answer": "Two\nlines"},
    {"question": "三是什么？", "answer": "三 | 3"},
]


def _written(dialect: str, names: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, dialect)
    writer.writerows(([["question", "answer"]] if names else []) + [list(row.values()) for row in ROWS])
    return out.getvalue()


@pytest.mark.parametrize("names", [True, False])
def test_cells_of_a_spreadsheet(names: bool) -> None:
    pasted = read_pasted(_written("excel-tab", names))
    assert pasted.rows == ROWS
    assert pasted.header == ("names" if names else "row")


def test_a_markdown_table() -> None:
    text = "| question | answer |\n|:--|---|\n| What is \\| 1? | One<br>two |\n| Second | |\n"
    assert read_pasted(text).rows == [
        {"question": "What is | 1?", "answer": "One\ntwo"},
        {"question": "Second", "answer": ""},
    ]


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("问题\t答案", "names"),  # a known layout
        ("Frage\tAntwort", "names"),  # short words over longer cells
        ("What is the capital of France?\tParis is the capital of France.", "row"),
        ("What is 1?\tOne", "row"),
    ],
)
def test_whether_the_first_line_is_names(first: str, header: str) -> None:
    text = first + "\nWhat is the capital of Spain?\tMadrid is the capital of Spain.\n"
    assert read_pasted(text).header == header
    assert len(read_pasted(text, "row").rows or []) == 2, "as the user says otherwise"
    assert len(read_pasted(text, "names").rows or []) == 1


@pytest.mark.parametrize(("ask", "reply"), [("Q:", "A:"), ("问：", "答："), ("**User:**", "**Assistant:**")])
def test_lines_of_questions_and_answers(ask: str, reply: str) -> None:
    pasted = read_pasted(f"{ask} one?\n{reply} 1\nand more\n\n{ask} two?\n{reply} 2\n")
    assert pasted.rows == [{"question": "one?", "answer": "1\nand more"}, {"question": "two?", "answer": "2"}]


def test_everything_else_stays_as_it_stands() -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    assert read_pasted(lines)[:3] == (None, lines, "jsonl")
    assert read_pasted(json.dumps(ROWS)).ending == "json"
    assert read_pasted(_written("excel", True)).ending == "csv"
    assert read_pasted("A fox lived in a wood.\n\nIt went away.").ending == "txt"
    assert read_pasted("Q: one?\nQ: two?\nA: 2").ending == "txt", "a question without an answer is lost by no guess"


@pytest.mark.parametrize("text", ["", " \n\t\n", "question\tanswer\n", "x" * 5_000_001])
def test_what_holds_no_rows_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        read_pasted(text, "names" if "\t" in text else "auto")


def test_the_command_writes_a_new_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = tmp_path / "copied.txt"
    copied.write_text(_written("excel-tab", True))
    order = ["paste", str(tmp_path / "rows"), str(copied), "--json"]
    assert main(order) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"path": str(tmp_path / "rows.jsonl"), "rows": 3, "header": "names"}
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == ROWS
    assert main(order) == 2, "what stands there stays"
