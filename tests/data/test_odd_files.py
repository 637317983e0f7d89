"""Files as people really have them: wrapped, half converted, exported by a spreadsheet, mixed. Each is read, or refused
in words that help.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from studio import data
from studio.errors import DataError
from tests.data.fixtures import ALPACA, MESSAGES, QA, SHAREGPT, as_lines, as_table, two

PAIRS = [list(pair) for pair in QA]
COLUMNS = {name: [row[name] for row in ALPACA] for name in ALPACA[0]}
VIEWED = [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(ALPACA)]
GERMAN = [("Wie heißt das?", "Schöne Grüße aus Köln."), ("Und das?", "Ein Gänseblümchen ist es.")]
QUOTED = [("What\x92s this?", "It\x92s a \x93quote\x94 of his.")]
SYSTEM = {"from": "system", "value": "Brief."}
LABELLED = [{"prompt": q, "completion": a, "label": "undesirable" if n else "desirable"} for n, (q, a) in enumerate(QA)]


def semicolons(pairs: list[tuple[str, str]], encoding: str = "utf-8", before: str = "") -> bytes:
    return (before + "question;answer\r\n" + "".join(f'{q};"{a}"\r\n' for q, a in pairs)).encode(encoding)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


READ: dict[str, tuple[bytes, str, int, str]] = {  # what it is -> content, format, rows, the first answer
    "an object of columns": (text(COLUMNS), "alpaca", 3, QA[0][1]),
    "pandas' to_json": (
        text({k: {str(n): v for n, v in enumerate(column)} for k, column in COLUMNS.items()}),
        "alpaca",
        3,
        QA[0][1],
    ),
    "pandas' to_json, split": (
        text({"columns": ["question", "answer"], "index": [0, 1, 2], "data": PAIRS}),
        "prompt",
        3,
        QA[0][1],
    ),
    "rows two objects deep": (text({"version": 1, "data": {"rows": ALPACA}}), "alpaca", 3, QA[0][1]),
    "rows by name": (text({f"id{n}": row for n, row in enumerate(ALPACA)}), "alpaca", 3, QA[0][1]),
    "an answer of the Hub's viewer": (
        text({"features": [{"name": "instruction"}], "rows": VIEWED}),
        "alpaca",
        3,
        QA[0][1],
    ),
    "its rows a line": (as_lines(VIEWED), "alpaca", 3, QA[0][1]),
    "a comma behind every line": (b"".join(text(row) + b",\n" for row in ALPACA), "alpaca", 3, QA[0][1]),
    "a comma too much": (b"[" + b",".join(map(text, ALPACA)) + b",]", "alpaca", 3, QA[0][1]),
    "a list over many lines": (b"[\n" + b",\n".join(map(text, ALPACA)) + b"\n]\n", "alpaca", 3, QA[0][1]),
    "line breaks between quotes": (
        semicolons([(q, a + "\nMore; and more, too.") for q, a in QA]),
        "prompt",
        3,
        QA[0][1] + "\nMore; and more, too.",
    ),
    "Excel's text in UTF-16": (
        as_table(two(("question", "answer")), "\t").decode().encode("utf-16"),
        "prompt",
        3,
        QA[0][1],
    ),
    "Excel's note of the separator": (semicolons(QA, before="sep=;\r\n"), "prompt", 3, QA[0][1]),
    "Latin-1": (semicolons(GERMAN, "latin-1"), "prompt", 2, GERMAN[0][1]),
    "quotes of Windows": (semicolons(QUOTED, "latin-1"), "prompt", 1, "It’s a “quote” of his."),
    "names in capitals": (
        as_table([dict(zip(("Instruction", "Output"), pair, strict=True)) for pair in QA]),
        "alpaca",
        3,
        QA[0][1],
    ),
    "turns in capitals": (as_lines([{"Messages": row["messages"]} for row in MESSAGES]), "chatml", 3, QA[0][1]),
    "numbers for answers": (
        as_lines([{"question": f"{n} and {n}?", "answer": 2 * n} for n in range(1, 9)]),
        "prompt",
        8,
        "2",
    ),
    "tools and null": (
        as_lines(
            [
                {
                    "messages": [
                        {"role": "user", "content": "Weather?"},
                        {
                            "role": "assistant",
                            "content": None,
                            "tool_calls": [{"function": {"name": "w", "arguments": "{}"}}],
                        },
                        {"role": "tool", "content": "sunny"},
                        {"role": "assistant", "content": "It is sunny."},
                    ]
                }
            ]
        ),
        "chatml",
        1,
        "",
    ),
    "a system turn in ShareGPT": (
        text([{"conversations": [SYSTEM, *row["conversations"]]} for row in SHAREGPT]),
        "sharegpt",
        3,
        QA[0][1],
    ),
    "turns written as text": (
        as_lines([{"messages": json.dumps(row["messages"])} for row in MESSAGES]),
        "chatml",
        3,
        QA[0][1],
    ),
    "a mark and gzip": (gzip.compress(b"\xef\xbb\xbf" + as_lines(ALPACA)), "alpaca", 3, QA[0][1]),
    "verdicts in words": (as_lines(LABELLED), "kto", 3, QA[0][1]),
    "a line of 5 MB": (
        as_lines([{"instruction": "Summarise.", "input": "word " * 1_000_000, "output": "Words."}, *ALPACA]),
        "alpaca",
        4,
        "Words.",
    ),
}
REFUSED: dict[str, tuple[bytes, str, str]] = {  # what it is -> content, what the message says, what the hint says
    "lists without names": (text(PAIRS), "lists without names", "Write each row as an object"),
    "names nobody knows": (as_lines(two(("frage", "antwort"))), "frage, antwort", "prompt: frage, answer: antwort"),
    "no header": (
        b"".join(f'"{q}","{a}"\n'.encode() for q, a in QA),
        "Why is the sky blue",
        "write the names of the columns in a line above it",
    ),
    "a header alone": (b"instruction,output\n", "holds no rows", "holds rows"),
    "several lists": (text({"train": ALPACA, "test": ALPACA}), "train, test", "file of its own"),
    "rows as Python prints them": ("".join(f"{row}\n" for row in ALPACA).encode(), "Line 1 is not JSON", "json.dumps"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "Git LFS pointer",
        "git lfs pull",
    ),
    "a page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page", "Download the file itself"),
    "an error": (text({"error": "Repository not found", "status": 404}), "error, status", "mapping"),
}


@pytest.mark.parametrize("what", READ)
def test_read(what: str, home: Path, tmp_path: Path) -> None:
    content, form, rows, answer = READ[what]
    path = tmp_path / "file"
    path.write_bytes(content)
    found = data.read(path)
    assert (found.format, found.rows, len(found.conversations), found.refused) == (form, rows, rows, 0)
    assert next(m["content"] for m in found.conversations[0]["messages"] if m["role"] == "assistant") == answer


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, home: Path, tmp_path: Path) -> None:
    content, message, hint = REFUSED[what]
    path = tmp_path / ("file.csv" if what == "no header" else "file")
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        data.read(path)
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_layouts_mixed_in_one_file_are_told(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(as_lines([*ALPACA, MESSAGES[0], {"prompt": "Who?", "completion": "Me."}, SHAREGPT[0]]))
    found = data.read(path)
    assert (found.format, found.rows, found.refused, found.by_kind["missing_field"].tolist()) == (
        "alpaca",
        6,
        3,
        [4, 4, 5, 5, 6, 6][::2],
    )
    assert (
        "Only 3 of the first 6 rows look like Alpaca. Others look like ChatML messages, Prompt and completion, ShareGPT"
        in found.unsure
    )


def test_cells_that_say_nothing(home: Path, tmp_path: Path) -> None:
    """An empty cell of a spreadsheet written out; answers of one letter, unless most are."""
    path = tmp_path / "cells.csv"
    path.write_bytes(
        as_table(
            [
                *two(("question", "answer")),
                *({"question": "And?", "answer": a} for a in ("nan", "NaN", "None", "x", "7")),
            ]
        )
    )
    assert data.read(path).by_kind["nan_text"].tolist() == [4, 5, 6]
    assert data.read(path).by_kind["too_short"].tolist() == [7, 8]
    path.write_bytes(
        as_table([{"question": f"Which is right in case {n}?", "answer": "ABCD"[n % 4]} for n in range(40)])
    )
    assert "too_short" not in data.read(path).counts


def test_chinese_without_utf8_is_still_chinese(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "gbk.csv"
    path.write_bytes(semicolons([("怎样泡绿茶？", "用 80 度的水，time 三分钟。")], "gb18030"))
    found = data.read(path)
    assert found.conversations[0]["messages"][1]["content"] == "用 80 度的水，time 三分钟。"
    assert found.counts == {"legacy_encoding": 1}
