"""Rows out of pasted text: cells copied from a spreadsheet, a Markdown table, lines of questions and answers."""

from __future__ import annotations

import csv
import io
import re
from typing import NamedTuple

from studio import json_text
from studio.data.containers import JSON_START
from studio.data.dialects import DrawnReader, dialect_of, is_rule
from studio.data.formats import fitting
from studio.errors import DataError
from studio.text.marks import ROLES

MAX_CHARS = 5_000_000
MAX_TITLE_CHARS = 24  # of a column's name
BREAK = re.compile(r" *<br\s*/?> *")
SPEAKER = "|".join(map(re.escape, ROLES))
LABEL = re.compile(rf"(?i)\s*(?:\*\*)?({SPEAKER})\s*\d*(?:\*\*)?\s*[:：](?:\*\*)?\s*(.*)")
NAMES = {1: ("text",), 2: ("question", "answer"), 3: ("instruction", "input", "output")}  # of columns without names
HEADERS = ("auto", "names", "row")


class Pasted(NamedTuple):
    """text: of a file of kind `ending`. rows: its rows, where they are of a table or of labelled lines, else None.

    header: what the first line of a table was taken for, "" where there is none.
    """

    rows: list[dict[str, str]] | None
    text: str
    ending: str
    header: str = ""


def read_pasted(text: str, header: str = "auto") -> Pasted:
    """What was pasted. header: what the first line of a table is. Raises DataError."""
    if header not in HEADERS:
        hint = f"Give one of {', '.join(HEADERS)}."
        raise DataError(f"{header!r} is nothing that a first line holds.", hint, "header")
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff").strip("\n")
    if not text.strip():
        raise DataError("Nothing was pasted.", "Copy some rows of a table first, then paste them here.", "text")
    if len(text) > MAX_CHARS:
        hint = "Save them as a file, and bring that."
        raise DataError(f"{len(text):,} characters are too many to paste.", hint, "text")
    if JSON_START.match(text.lstrip()):
        return Pasted(None, text + "\n", "jsonl" if text.lstrip()[0] == "{" else "json")
    if table := _markdown_table(text):
        return _named(table, "names" if header == "auto" else header)
    if table := _spreadsheet_cells(text):
        return _named(table, header)
    if rows := _labelled_rows(text):
        return Pasted(rows, json_text.lines(rows), "jsonl")
    return Pasted(None, text + "\n", "csv" if dialect_of(text) else "txt")


def _markdown_table(text: str) -> list[list[str]]:
    """The cells of a Markdown table, which begins with the first line; <br> stands for a new line."""
    lines = text.split("\n")
    if len(lines) < 2 or "|" not in lines[0] or not is_rule(lines[1]):
        return []
    return [[BREAK.sub("\n", cell) for cell in cells] for cells in DrawnReader(lines) if cells]


def _spreadsheet_cells(text: str) -> list[list[str]]:
    """Cells as Excel, Sheets and Numbers copy them: parted by tabs, quoted where they hold a new line."""
    rows = [row for row in csv.reader(io.StringIO(text), "excel-tab") if any(cell.strip() for cell in row)]
    width = max(map(len, rows))
    return rows if width > 1 and 2 * sum(len(row) == width for row in rows) > len(rows) else []


def _named(table: list[list[str]], header: str) -> Pasted:
    width = max(map(len, table))
    known = {name for name in table[0] if name.strip()}
    if header == "auto":
        header = "names" if len(known) == len(table[0]) and _are_names(table) else "row"
    names = NAMES.get(width, tuple(f"column {number}" for number in range(1, width + 1)))
    if header == "names":
        names, table = tuple(_distinct([name.strip() for name in table[0]], width)), table[1:]
    if not table:
        raise DataError("There is a line of names, but no row.", "Copy the rows below it too.", "text")
    rows = [dict(zip(names, [*row, *[""] * (width - len(row))], strict=True)) for row in table]
    return Pasted(rows, json_text.lines(rows), "jsonl", header)


def _are_names(table: list[list[str]]) -> bool:
    """Whether the first line holds the columns' names: those of a known layout, or words much shorter than the rest."""
    if fitting(dict.fromkeys(table[0], "x")):
        return True
    first = [cell.strip() for cell in table[0]]
    if any(len(cell) > MAX_TITLE_CHARS or re.search(r"[.?!。？！\d]", cell) for cell in first):
        return False
    rest = [len(cell) for row in table[1:] for cell in row]
    return bool(rest) and 2 * sum(map(len, first)) / len(first) < sum(rest) / len(rest)


def _distinct(names: list[str], width: int) -> list[str]:
    """A name for each column, no two alike."""
    distinct: list[str] = []
    for number in range(width):
        name = names[number] if number < len(names) and names[number] else f"column {number + 1}"
        distinct.append(name if name not in distinct else f"{name} ({number + 1})")
    return distinct


def _labelled_rows(text: str) -> list[dict[str, str]]:
    """Rows of lines such as "Q: …" and "A: …", each going on to the next label; [] where others stand among them."""
    turns: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        match = LABEL.fullmatch(line)
        if match:
            turns.append((ROLES[match[1].lower()], [match[2]]))
        elif turns:
            turns[-1][1].append(line)
        elif line.strip():
            return []
    kinds = [kind for kind, _ in turns]
    if len(kinds) < 2 or kinds != ["user", "assistant"] * (len(kinds) // 2):
        return []
    texts = ["\n".join(lines).strip() for _, lines in turns]
    return [{"question": ask, "answer": reply} for ask, reply in zip(texts[::2], texts[1::2], strict=True)]
