"""What kind of file this is, told from its first bytes and never from its name; and the file opened as UTF-8."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from studio.data.formats import formats
from studio.data.wrapped import rows_within
from studio.errors import DataError

HEAD = 1 << 18  # bytes looked at
BOM = b"\xef\xbb\xbf"
FOREIGN = {
    b"PK\x03\x04": ("a ZIP or Excel file", "Unpack it; save a sheet as CSV."),
    b"%PDF": ("a PDF", "Choose a JSON, JSON Lines, CSV or Parquet file."),
    b"\xd0\xcf\x11\xe0": ("an old Office file", "Save it as CSV."),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", "Unpack it, or pack it with gzip."),
    b"BZh": ("a bzip2 archive", "Unpack it, or pack it with gzip."),
    b"\xfd7zXZ": ("an xz archive", "Unpack it, or pack it with gzip."),
    b"GGUF": ("a model (GGUF)", "Choose it as the model, not as the data."),
    b"SQLite": ("an SQLite database", "Export the table as CSV."),
    b"\x89PNG": ("an image", "This studio trains on text."),
    b"\xff\xd8\xff": ("an image", "This studio trains on text."),
    b"version https://git-lfs": ("a Git LFS pointer", "The file itself was not fetched: run git lfs pull, or download it."),
    b"<!DOCTYPE html": ("a web page", "Download the file itself, not the page that shows it."),
    b"<!doctype html": ("a web page", "Download the file itself, not the page that shows it."),
    b"<html": ("a web page", "Download the file itself, not the page that shows it."),
}
CHOOSE = "Choose a JSON, JSON Lines, CSV, TSV, Parquet or Arrow file (gzip is fine)."


@dataclass(frozen=True)
class Container:
    """name: json | jsonl | csv | tsv | parquet | arrow | text. delimiter only for csv and tsv."""

    name: str
    gz: bool = False
    encoding: str = "utf-8"
    delimiter: str = ","


def container_of(path: Path) -> Container:
    """Raises DataError for an empty file and for what is no data file."""
    with open(path, "rb") as file:
        gz = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if gz else open(path, "rb") as file:
            head = file.read(HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is packed with gzip but damaged: {error}.", "Pack it again.", path.name) from error
    if not head.strip(b" \t\r\n\x00" + BOM):
        raise DataError(f"{path.name} is empty.", "Choose a file that holds rows.", path.name)
    if head[:4] == b"PAR1":
        return Container("parquet", gz)
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return Container("arrow", gz)
    for magic, (what, hint) in FOREIGN.items():
        if head.startswith(magic):
            raise DataError(f"{path.name} is {what}, not data.", hint, path.name)
    encoding = encoding_of(head)
    text = head.decode(encoding, errors="replace").lstrip("\ufeff")
    if "\x00" in text[:4096] and text.count("\x00") > len(text) // 20:
        raise DataError(f"{path.name} is a binary file of an unknown kind.", CHOOSE, path.name)
    name, delimiter = _text_kind(text, whole=len(head) < HEAD)
    if name == "text" and {".json", ".jsonl"} & set(path.suffixes):
        first = " ".join(text.split("\n")[0].split())[:60]
        raise DataError(f"{path.name} is not JSON: it begins with {first!r}.", "Export it again as JSON, or name it .txt if it is plain text.", path.name)
    if name == "text" and {".csv", ".tsv"} & set(path.suffixes):  # two lines of numbers look like text: here the name decides
        name = "tsv" if ".tsv" in path.suffixes else "csv"
        delimiter = "\t" if name == "tsv" else ","
    return Container(name, gz, encoding, delimiter)


def encoding_of(head: bytes) -> str:
    """utf-8 (also when single lines are broken), utf-16 by its mark, gb18030 where all of it fits, else cp1252 or latin-1."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    lines = [line for line in head.rpartition(b"\n")[0].split(b"\n") if not line.isascii()] or [head[: len(head) - 4]]
    broken = [line for line in lines if not _decodes(line, "utf-8")]
    if len(broken) * 2 <= len(lines) or (len(lines) == 1 and head[:1] in (b"{", b"[") and not _decodes(head, "gb18030")):
        return "utf-8"
    if all(_decodes(line, "gb18030") for line in lines) and _in_pairs(b"".join(lines)):
        return "gb18030"
    return "cp1252" if _decodes(head, "cp1252") else "latin-1"


def _in_pairs(data: bytes) -> bool:
    """Do the bytes beyond ASCII stand side by side, as those of Chinese do, and not one by one between Latin letters?"""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    return sum(run for run in runs if run > 1) >= 0.8 * sum(runs)


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _text_kind(text: str, whole: bool) -> tuple[str, str]:
    """(container, delimiter) of a text file from its beginning."""
    start = text.lstrip()
    if start[:1] in ("{", "["):
        return _json_kind(start, whole), ","
    delimiter = None if start.startswith("<|im_start|>") else _delimiter(text)
    if delimiter is None:
        if _later_json(text):
            return "jsonl", ","
        return "text", ","
    return ("tsv" if delimiter == "\t" else "csv"), delimiter


def _json_kind(start: str, whole: bool) -> str:
    """json (one value, or objects over several lines) or jsonl (a value a line)."""
    lines = [line for line in start.splitlines() if line.strip()]
    if not whole and len(lines) > 1:
        lines.pop()
    good = sum(map(_is_value, lines[:50]))
    if len(lines) == 1:
        return "json" if start[0] == "[" or not _is_value(lines[0]) or rows_within(json.loads(lines[0])) else "jsonl"
    return "jsonl" if good * 2 >= min(len(lines), 50) and good else ("jsonl" if _one_a_line(lines[:50]) else "json")


def _one_a_line(lines: list[str]) -> bool:
    """Every line begins an object and (nearly) every one ends it: JSON Lines with faults in them."""
    return len(lines) > 1 and all(line.lstrip()[:1] == "{" for line in lines) and sum(line.rstrip().endswith("}") for line in lines) * 2 >= len(lines)


def _is_value(line: str) -> bool:
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False


def _later_json(text: str) -> bool:
    """JSON Lines whose first line is no JSON (a comment, a broken line)."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    return sum(line.lstrip()[:1] == "{" and _is_value(line) for line in lines) * 2 >= max(len(lines), 1)


def _delimiter(text: str) -> str | None:
    """The separator of a table with a header line, or None when the text is no table."""
    known = {name for form in formats().values() for part in form.COLUMNS.values() for name in part} | {"chosen", "rejected", "label"}
    best: tuple[int, str] | None = None
    noted = re.match(r"sep=(.)\r?\n", text)  # Excel's
    if noted:
        return noted[1]
    for delimiter in ("\t", ",", ";", "|"):
        rows = _sniff(text, delimiter)
        if not rows:
            continue
        header = [cell.strip().lower() for cell in rows[0]]
        hits = sum(cell in known for cell in header)
        same = sum(len(row) == len(header) for row in rows[1:])
        names = len(set(header)) == len(header) and all(cell and len(cell) < 40 and not cell.endswith((".", "?", "!")) for cell in header)
        if (hits and names) or (len(header) > 1 and names and len(rows) > 2 and same == len(rows) - 1):
            score = (hits * 10 + len(header), delimiter)
            best = max(best, score) if best else score
    return best[1] if best else None


def _sniff(text: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text[:65536], newline=""), delimiter=delimiter)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) > 20:
                break
    except csv.Error:
        return rows[:1]
    return rows[:-1] if len(text) > 65536 and len(rows) > 2 else rows


def open_bytes(path: Path, container: Container) -> IO[bytes]:
    """The file's bytes, unpacked, in UTF-8 (single bytes may still be broken), from behind a byte order mark."""
    file: Any = gzip.open(path) if container.gz else open(path, "rb", buffering=1 << 20)  # noqa: SIM115, the caller closes it
    if container.encoding != "utf-8":
        return io.BufferedReader(_Recoded(file, container.encoding), 1 << 20)  # type: ignore[return-value]
    if file.read(3) != BOM:
        file.seek(0)
    return file


class _Recoded(io.RawIOBase):
    """A file of another encoding, read as UTF-8, piece by piece."""

    def __init__(self, file: IO[bytes], encoding: str):
        self.file, self.decoder, self.rest = file, codecs.getincrementaldecoder(encoding)("replace"), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            data = self.file.read(1 << 16)
            self.rest = self.decoder.decode(data, final=not data).encode()
            if not data:
                break
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()
