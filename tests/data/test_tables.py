"""Tables as people draw and keep them: in Markdown, as psql and mysql print them, with groups above the header, in
workbooks with more than one sheet and with hidden parts, with cells as Excel writes them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studio import data
from studio.data.editing.fixes import apply_fix
from studio.data.tables import column_names
from studio.errors import DataError
from tests.data.fixtures import as_lines
from tests.data.test_shapes import A, U, said, write

ROWS = [[(U, "How so?"), (A, "As it is.")], [(U, "Why | what?"), (A, "Because.")]]
GRID = "+----------+----------+\n"
HEAD, ONE, TWO = "| prompt | completion |\n", "| How so? | As it is. |\n", "| Why \\| what? | Because. |\n"
RULE = "|--------|:----------:|\n"
DRAWN = {
    "Markdown": HEAD + RULE + ONE + TWO,
    "without bars at the edges": "prompt | completion\n--- | ---\nHow so? | As it is.\nWhy \\| what? | Because.\n",
    "under a heading": f"# Tea\n\n{HEAD}{RULE}{ONE}{TWO}\nend\n",
    "in two pieces": f"{HEAD}{RULE}{ONE}\n{HEAD}{RULE}{TWO}",
    "before another one": f"{HEAD}{RULE}{ONE}{TWO}\n|a|b|\n|-|-|\n|c|d|\n",
    "psql": " prompt | completion \n--------+------------\n How so? | As it is.\n Why \\| what? | Because.\n(2 rows)\n",
    "mysql": f"{GRID}{HEAD}{GRID}{ONE}{TWO}{GRID}",
    "a grid": f"{GRID}{HEAD}{GRID.replace('-', '=')}{ONE}{GRID}{TWO}{GRID}",
}
BESIDE = {"under a heading": "# Tea; end", "before another one": "|a|b|; |c|d|", "psql": "(2 rows)"}


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("name", ["a.md", "a.txt", "pasted"])
def test_a_drawn_table(kind: str, name: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, DRAWN[kind].encode(), name))
    assert (read.container, read.refused, [said(c) for c in read.conversations]) == ("markdown", 0, ROWS)
    notes = [f"Beside the table stands text that was not read: {BESIDE[kind]}."] if kind in BESIDE else []
    assert (read.notes, read.unused) == (notes, [])


def test_a_text_around_a_table_stays_text(home: Path, tmp_path: Path) -> None:
    text = (
        "# Guide\n\nTea is hot.\n\nIt is good.\n\n| option | sense |\n|---|---|\n| a | b |\n\nSo it is.\n\nThe end.\n"
    )
    assert data.read(write(tmp_path, text.encode(), "a.md")).format == "text"


def test_a_row_of_too_many_cells_is_told(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, b"| prompt | completion |\n|--|--|\n| a b? | c d |\n| e | f | g |\n", "a.md"))
    assert [(p.row, p.line, p.kind) for p in read.problems] == [(2, 4, "columns")]


ABOVE = {
    "groups": "Dialogue,,Meta\nquestion,answer,lang\nHow so?,As it is.,en\nWhy?,Because.,en\n",
    "groups in every cell": "qa,qa,meta\nquestion,answer,lang\nHow so?,As it is.,en\nWhy?,Because.,en\n",
    "a remark with commas": "# ann, ben, 2024, all\nquestion,answer,lang\nHow so?,As it is.,en\nWhy?,Because.,en\n",
}


@pytest.mark.parametrize("kind", ABOVE)
def test_what_stands_above_the_header_is_no_header(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, ABOVE[kind].encode(), "a.csv"))
    assert (read.refused, [said(c) for c in read.conversations][:1]) == (0, ROWS[:1])
    assert read.notes[0].startswith("The header is line 2; above it stands, and was left out: ")


def test_groups_above_names_that_nobody_knows(home: Path, tmp_path: Path) -> None:
    table = "Dialog,,Meta,\nFrage,Antwort,Sprache,Nr\nHow so?,As it is.,en,1\nWhy?,Because.,en,2\n"
    path = write(tmp_path, table.encode(), "a.csv")
    with pytest.raises(DataError, match="Frage, Antwort, Sprache, Nr") as refusal:
        data.read(path)
    assert "{prompt: Frage, answer: Antwort}" in refusal.value.hint
    assert said(data.read(path, mapping={"prompt": "Frage", "answer": "Antwort"}).conversations[0]) == ROWS[0]


def test_a_header_with_a_nameless_column_stays_the_header(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, b"question,,answer\ntea,x,a drink\nWhy so?,y,Because.\n", "a.csv"))
    assert said(read.conversations[0]) == [(U, "tea"), (A, "a drink")]


def test_a_header_that_comes_again_is_no_row(home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, b"question,answer\nHow so?,As it is.\nquestion,answer\nWhy?,So.\n", "a.csv"))
    assert [(p.row, p.line, p.kind) for p in read.problems if p.severity == "refused"] == [(2, 3, "columns")]
    assert "repeats the header" in read.problems[0].reason


def test_a_header_behind_another_mark_is_no_row(home: Path, tmp_path: Path) -> None:
    part = "\ufeffquestion,answer\nHow so?,As it is.\n"
    read = data.read(write(tmp_path, (part + part.replace("is.", "was.")).encode(), "a.csv"))
    assert [(p.row, p.kind) for p in read.problems] == [(2, "columns")]


ABOUT = {
    "units": "(text),(text),(s)\nHow so?,As it is.,3\n",
    "types": "string,string,int\nHow so?,As it is.,3\n",
    "totals": "Total,17,42\nHow so?,As it is.,3\n",
    "data": "Sum it up.,(text),3\nHow so?,As it is.,3\n",
}


@pytest.mark.parametrize("kind", ABOUT)
def test_a_row_of_units_or_totals_is_told(kind: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, f"question,answer,time\n{ABOUT[kind]}".encode(), "a.csv"))
    assert read.counts == ({} if kind == "data" else {"table_row": 1})


BREAKS = {"First line.\\nSecond.": 1, "80.\\n\\nOr 90.": 1, "\\n- a\\n- b": 1, "C:\\new\\names": 0, "$a, \\neq b$": 0,
          "`print('a.\\nB')`": 0, "print('a.\\nB')\nprint()": 0}  # fmt: skip


@pytest.mark.parametrize("text", BREAKS)
def test_line_breaks_as_two_signs_are_told_and_mended(text: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, as_lines([{"question": "How so?", "answer": text}])))
    assert read.counts.get("literal_break", 0) == BREAKS[text]
    assert apply_fix("literal_break", {"answer": "a.\\nB"}) == {"answer": "a.\nB"}


def test_text_formulas_of_excel(home: Path, tmp_path: Path) -> None:
    table = b'="question",answer\n="How so?","=""As it is."""\nWhy?,"=""a""&""b"""\n'
    read = data.read(write(tmp_path, table, "a.csv"))
    assert [said(c)[1][1] for c in read.conversations] == ["As it is.", '="a"&"b"']
    assert said(read.conversations[0]) == ROWS[0]
    assert len(read.notes) == 1


@pytest.mark.parametrize("word", ["N/A", "#N/A", "n/a", "<NA>", "NaT", "#REF!", "#DIV/0!", "(null)", "nil"])
def test_a_cell_that_holds_nothing_or_an_error_is_told(word: str, home: Path, tmp_path: Path) -> None:
    read = data.read(write(tmp_path, f"question,answer\nWhy?,{word}\nHow so?,As it is.\n".encode(), "a.csv"))
    assert (read.counts, read.problems[0].value) == ({"nan_text": 1}, word)


# -- workbooks

DATA = [
    ["question", "answer", "note"],
    ["How so?", "As it is.", "x"],
    ["HIDDEN?", "HIDDEN.", "x"],
    ["Why?", "So.", "x"],
]


def workbook(path: Path, **sheets: list[list[Any]]) -> Any:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return book


FIRST: dict[str, list[list[Any]]] = {
    "words": [["About this file"], ["Made by Ann"], ["See Data"]],
    "a table of the columns": [["Field", "Meaning"], ["question", "what is asked"], ["answer", "what is said"]],
}


@pytest.mark.parametrize("kind", FIRST)
def test_the_sheet_with_the_data_is_read(kind: str, home: Path, tmp_path: Path) -> None:
    workbook(tmp_path / "a.xlsx", **{"Read me": FIRST[kind], "Data": DATA})
    read = data.read(tmp_path / "a.xlsx")
    assert said(read.conversations[0]) == ROWS[0]
    assert "The sheet Data was read; these were not: Read me." in read.notes


def hide(path: Path, change: Callable[[Any], None], **sheets: list[list[Any]]) -> data.Dataset:
    book = workbook(path, **sheets)
    change(book)
    book.save(path)
    return data.read(path)


def test_hidden_rows_are_told_and_can_be_dropped(home: Path, tmp_path: Path) -> None:
    def change(book: Any) -> None:
        book["Data"].row_dimensions[3].hidden = True
        book["Data"].column_dimensions["C"].hidden = True

    read = hide(tmp_path / "a.xlsx", change, Data=DATA)
    assert {kind: rows.tolist() for kind, rows in read.by_kind.items()} == {"hidden_row": [2]}
    assert read.notes == ["Columns that are hidden in the sheet are read like the others: C."]
    assert "--set data.problems.hidden_row=drop" in read.problems[0].hint
    kept = read.decide({"hidden_row": "drop"}).conversations
    assert [said(c)[0][1] for c in kept] == ["How so?", "Why?"]


def test_a_hidden_sheet_is_not_read(home: Path, tmp_path: Path) -> None:
    def change(book: Any) -> None:
        book["old"].sheet_state = "hidden"
        book.active = 1

    read = hide(tmp_path / "a.xlsx", change, old=[["question", "answer"], ["OLD?", "OLD."]], Data=DATA)
    assert said(read.conversations[0]) == ROWS[0]
    assert "The sheet Data was read; these were not: old (hidden)." in read.notes


def test_groups_above_the_header_of_a_sheet(home: Path, tmp_path: Path) -> None:
    def change(book: Any) -> None:
        book["Data"].merge_cells("A1:B1")

    read = hide(tmp_path / "a.xlsx", change, Data=[["Dialogue", None, "Meta"], *DATA])
    assert (said(read.conversations[0]), read.unused, read.conversations[0]["line"]) == (ROWS[0], ["note"], 3)


def test_a_sheet_larger_than_it_says_is_read_whole(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    workbook(path, Data=[DATA[0], *DATA[1:2] * 40])
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    with zipfile.ZipFile(path, "w") as book:
        for name, xml in parts.items():
            book.writestr(name, re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:B2"', xml))
    assert data.read(path).rows == 40


def test_doubles_of_thousands_of_columns_are_named_at_once() -> None:
    assert column_names(["a (2)", "a", "a", "", "a", ""]) == ["a (2)", "a", "a (3)", "", "a (4)", ""]
    names = column_names([f"c{n % 100_000}" for n in range(200_000)])
    assert len(set(names)) == 200_000


# -- Parquet


def test_two_columns_of_one_name_and_maps(home: Path, tmp_path: Path) -> None:
    turns = [[{"role": U, "content": q}, {"role": A, "content": "As it is."}] for q in ("How so?", "Why?")]
    maps = pa.array(turns, pa.list_(pa.map_(pa.string(), pa.string())))
    pq.write_table(pa.table({"messages": maps}), tmp_path / "maps.parquet")
    assert said(data.read(tmp_path / "maps.parquet").conversations[0]) == ROWS[0]
    columns = [pa.array(["How so?", "Why?"]), pa.array(["As it is.", "So."]), pa.array(["OTHER", "OTHER"])]
    pq.write_table(pa.Table.from_arrays(columns, ["prompt", "completion", "completion"]), tmp_path / "two.parquet")
    read = data.read(tmp_path / "two.parquet")
    assert (said(read.conversations[0]), read.unused) == (ROWS[0], ["completion (2)"])


def test_notes_of_the_file_stay_where_turns_are_gathered(home: Path, tmp_path: Path) -> None:
    table = b"Talks of 2024,,\nconversation_id,role,content\n1,user,How so?\n1,assistant,As it is.\n"
    read = data.read(write(tmp_path, table, "a.csv"))
    assert said(read.conversations[0]) == ROWS[0]
    assert [note.split(":")[0] for note in read.notes] == [
        "The header is line 2; above it stands, and was left out",
        "Rows of one turn each were gathered into conversations, by the column conversation_id",
    ]
