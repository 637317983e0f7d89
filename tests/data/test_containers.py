"""What rows come in: tables of every dialect against csv's own writer, encodings, packed files, archives, folders,
sheets.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from studio import data
from studio.errors import DataError
from tests.data.fixtures import as_lines, as_parquet

ROWS = [
    {"question": "Which birds, if any?", "answer": 'An "owl"; no\nother.'},
    {"question": "And\tnow?", "answer": "A\u2028B\u0085C\x0cD|E"},
    {"question": "C:\\new\\path?", "answer": "Yes: \\n"},
]


def table(**dialect: object) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["question", "answer"], **dialect)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def answers(found: data.Dataset) -> list[dict[str, str]]:
    return [dict(zip(("question", "answer"), (m["content"] for m in c["messages"]))) for c in found.conversations]


def write(folder: Path, content: bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


DIALECTS = {
    "commas": {},
    "semicolons": {"delimiter": ";"},
    "tabs": {"delimiter": "\t"},
    "bars": {"delimiter": "|"},
    "all quoted": {"quoting": csv.QUOTE_ALL},
    "LF": {"lineterminator": "\n"},
    "backslashes": {"escapechar": "\\", "doublequote": False, "quoting": csv.QUOTE_ALL},
    "backslashes and semicolons": {
        "escapechar": "\\",
        "doublequote": False,
        "quoting": csv.QUOTE_ALL,
        "delimiter": ";",
    },
}


@pytest.mark.parametrize("name", DIALECTS)
def test_what_csv_writes_is_read(name: str, home: Path, tmp_path: Path) -> None:
    assert answers(data.read(write(tmp_path, table(**DIALECTS[name]), "t.csv"))) == ROWS


def test_headers(home: Path, tmp_path: Path) -> None:
    """A nameless index, empty columns at the end, a title above, blanks behind separators, a name twice."""

    def read(text: str) -> data.Dataset:
        return data.read(write(tmp_path, text.encode(), "t.csv"))

    for sign in ",;\t":
        found = read(f"{sign}question{sign}answer\n0{sign}a b?{sign}c d.\n1{sign}e?{sign}f\n")
        assert (answers(found)[0], found.unused) == ({"question": "a b?", "answer": "c d."}, ["(no name)"])
        assert answers(read(f"question{sign}answer{sign}{sign}\na?{sign}b{sign}{sign}\nc?{sign}d{sign}{sign}\n"))[
            1
        ] == {"question": "c?", "answer": "d"}
    found = read("My rows of 2024,\n,\nQuestion,Answer\na?,b\nc?,d\n")
    assert [m["content"] for m in found.conversations[0]["messages"]] == ["a?", "b"]
    assert found.conversations[0]["line"] == 4
    assert "My rows of 2024" in found.notes[0]
    assert answers(read('question, answer\n"a, b?", "c"\n"d?", "e"\n'))[0] == {"question": "a, b?", "answer": "c"}
    found = read("question,answer,answer\na?,b,x\nc?,d,y\n")
    assert (answers(found)[0]["answer"], found.unused) == ("b", ["answer (2)"])


def test_a_fault_of_quoting_costs_its_row(home: Path, tmp_path: Path) -> None:
    found = data.read(
        write(tmp_path, b'question,answer\n"a?","b"\n"He said "yes"?","c"\n"d?","e"\n' + b'"f?","g"\n' * 30, "t.csv")
    )
    assert found.by_kind["columns"].tolist() == [2]
    assert "written twice" in found.problems[0].reason or any("written twice" in p.reason for p in found.problems)
    assert [c["line"] for c in found.conversations][:2] == [2, 4]


TEXTS = {
    "cp1251": "Где живут пчёлы?;В улье, в лесу.\nЧто тает весной?;Снег и лёд.",
    "koi8-r": "Где живут пчёлы?;В улье, в лесу.\nЧто тает весной?;Снег и лёд.",
    "cp866": "Где живут пчёлы?;В улье, в лесу.\nЧто тает весной?;Снег и лёд.",
    "shift_jis": "夏に何を食べますか。;氷を食べます。\n冬はどうですか。;鍋を食べます。",
    "euc_jp": "夏に何を食べますか。;氷を食べます。\n冬はどうですか。;鍋を食べます。",
    "big5": "請問台灣最高的山是哪一座？;是玉山，海拔將近四千公尺。\n最長的河呢？;濁水溪。",
    "gb18030": "请问中国最高的山是哪一座？;珠穆朗玛峰。\n最长的河呢？;长江，全长六千多公里。",
    "euc_kr": "한국에서 가장 높은 산은?;한라산입니다.\n가장 긴 강은?;압록강입니다.",
    "cp1252": "Où est le café?;Là-bas, près de l’école.\nQuel âge?;Très âgé, déjà.",
    "cp1253": "Πού ζουν οι μέλισσες;Στην κυψέλη.\nΤι λιώνει;Ο πάγος.",
    "cp1256": "أين يعيش النحل؟;في الخلية.\nما الذي يذوب؟;الجليد.",
    "utf-16": "Où?;Là.\nWas?;Schön.",
    "utf-16-le": "Who is it?;Me.\nWas?;Schön.",
    "utf-32": "Où?;Là.\nA?;B",
}


CZECH = "Jaké je hlavní město Česka?;Praha je hlavní město České republiky, žije v ní přes milion lidí."


@pytest.mark.parametrize("encoding", TEXTS)
def test_encodings(encoding: str, home: Path, tmp_path: Path) -> None:
    found = data.read(write(tmp_path, ("question;answer\n" + TEXTS[encoding]).encode(encoding), "t.csv"))
    assert ";".join(m["content"] for m in found.conversations[0]["messages"]) == TEXTS[encoding].split("\n")[0]
    assert ("legacy_encoding" in found.counts) == (not encoding.startswith("utf"))
    assert found.encoding.replace("_", "-").startswith(("utf", "cp", "koi8", "gb", "big5", "euc"))


def test_an_unsure_encoding_stops_and_can_be_named(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path, ("question;answer\n" + CZECH).encode("cp1250"), "t.csv")
    with pytest.raises(DataError, match="not sure") as refused:
        data.read(path)
    assert (refused.value.where, "cp1250: Jaké je hlavní město" in refused.value.message) == ("data.encoding", True)
    assert data.read(path, encoding="cp1250").conversations[0]["messages"][1]["content"] == CZECH.partition(";")[2]
    with pytest.raises(DataError, match="no encoding named"):
        data.read(path, encoding="klingon")


def zipped(**files: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return held.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


LINES = as_lines(ROWS)
PACKED = {
    "gz": (gzip.compress(LINES), "jsonl.gz"),
    "bz2": (bz2.compress(LINES), "jsonl.bz2"),
    "xz": (lzma.compress(LINES), "jsonl.xz"),
    "zstd": (zstd(LINES), "jsonl.zst"),
    "zip": (zipped(**{"a__rows.jsonl": LINES, "README.md": b"x", "__MACOSX__a": b"y"}), "jsonl.zip"),
    "a table in a zip": (zipped(**{"t.csv": table()}), "csv.zip"),
    "parquet in gzip": (gzip.compress(as_parquet(ROWS)), "parquet.gz"),
}


def test_an_archive_with_a_password_is_told_as_that(home: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("rows.jsonl", '{"instruction": "a", "output": "b"}')
    locked = bytearray(packed.getvalue())
    locked[6] |= 1  # the flag of encryption, in the file's header and in the list at the end
    locked[locked.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "rows.zip").write_bytes(locked)
    with pytest.raises(DataError, match=r"^rows\.zip is locked with a password\. Pack it again"):
        data.read(tmp_path / "rows.zip")


@pytest.mark.parametrize("how", PACKED)
def test_packed(how: str, home: Path, tmp_path: Path) -> None:
    content, container = PACKED[how]
    found = data.read(write(tmp_path, content, "file"))
    assert (answers(found), found.container) == (ROWS, container)
    assert not [p for p in (home / "datasets").iterdir() if p.name.startswith(".")]


def test_folders_and_patterns(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    for n, row in enumerate(ROWS):
        write(folder / "data", as_lines([row]), f"train-{n:05}.jsonl")
    write(folder / "data", as_lines(ROWS), "test-00000.jsonl")
    write(folder, b"words", "README.md")
    found = data.read(folder)
    assert (answers(found), found.conversations.rows) == (ROWS, [1, 2, 3])
    assert "test-00000.jsonl" in found.notes[0]
    assert answers(data.read(f"{folder}/data/train-0000[12].jsonl")) == ROWS[1:]
    write(folder, table(), "other.csv")
    with pytest.raises(DataError, match="several kinds: .csv, .jsonl") as refused:
        data.read(folder)
    way = refused.value.hint.split(" or ")[1].rstrip(".")
    assert data.read(way).rows == 6
    with pytest.raises(DataError, match="No file matches"):
        data.read(f"{folder}/none-*.jsonl")


def test_a_damaged_archive_is_one_sentence(home: Path, tmp_path: Path) -> None:
    for content in (
        zipped(a=b"x")[:-8],
        b"PK\x03\x04rest",
        zipped(**{"word__document.xml": b"x"}),
        zipped(**{"picture.png": b"x"}),
    ):
        with pytest.raises(DataError):
            data.read(write(tmp_path, content, "file.zip"))


def test_a_sheet(home: Path, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Cover"
    sheet = book.create_sheet("Rows")
    for row in (
        ["Our rows of 2024", None],
        [None, None],
        ["Question", "Answer"],
        ["How many?", 5],
        ["Is it so?", True],
        ["When?", None],
    ):
        sheet.append(row)
    book.save(tmp_path / "book.xlsx")
    found = data.read(tmp_path / "book.xlsx")
    assert [m["content"] for m in found.conversations[0]["messages"]] == ["How many?", "5"]
    assert (found.container, found.conversations[0]["line"], found.by_kind["wrong_type"].tolist()) == ("xlsx", 4, [2])
    assert "Our rows of 2024" in found.notes[0]


def test_the_same_bytes_under_another_name_are_read_anew(home: Path, tmp_path: Path) -> None:
    content = b"What is tea, and why?\nA drink, mostly.\nAnd coffee, too?\n"
    first = data.read(write(tmp_path, content, "a.txt"))
    with pytest.raises(DataError):
        data.read(write(tmp_path, content, "a.csv"))
    assert data.read(tmp_path / "a.txt").fingerprint == first.fingerprint


def test_json_by_hand_is_told(home: Path, tmp_path: Path) -> None:
    found = data.read(
        write(tmp_path, b'[ // x\n{"prompt": "a?", "completion": "b",}\n{"prompt": "c?", "completion": "d"}]', "t.json")
    )
    assert found.rows == 2
    assert all(what in found.notes[0] for what in ("comments", "commas behind", "missing commas"))
    assert json.loads(json.dumps(found.notes)) == found.notes
