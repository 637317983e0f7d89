"""Detects what kind of file this is from its first bytes, and opens it as UTF-8."""

from __future__ import annotations

import codecs
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from studio.data.compression import DECOMPRESSION_ERRORS, compression_of, open_decompressed
from studio.data.dialects import Dialect, dialect_of
from studio.data.encodings import check_encoding, encoding_of
from studio.data.files import office
from studio.data.foreign import ANKI_HINT, CHOOSE_HINT, MAKE_HINT, refuse_magic, refuse_notation
from studio.data.nested_rows import rows_within
from studio.errors import DataError, reason_of

HEAD_BYTES = 1 << 18  # bytes looked at
# no JSON: [Verse 1], [12:30] Ann: …, [12.03.24, 10:01] Ann: …
JSON_START = re.compile(r"\{|\[(?!\s*(?:(?!true|false|null|NaN)[A-Za-z]|\d+[/:]\d|\d+[.-]\d+[.-]))")
BOM = b"\xef\xbb\xbf"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a]")  # no text has many of these


@dataclass(frozen=True, repr=False)
class Container:
    """How a file is read.

    name: json | jsonl | csv | tsv | markdown | xlsx | parquet | arrow | text.
    compression: gz | bz2 | xz | zst, or "" for none.
    dialect: of csv, tsv and markdown only.
    """

    name: str
    compression: str = ""
    encoding: str = "utf-8"
    dialect: Dialect = field(default_factory=Dialect)

    def __repr__(self) -> str:  # part of the fingerprint of stored data sets: must not change
        return (
            f"Container(name={self.name!r}, packed={self.compression!r}, encoding={self.encoding!r}, "
            f"dialect={self.dialect!r})"
        )

    @property
    def title(self) -> str:
        return f"{self.name}.{self.compression}" if self.compression else self.name


def container_of(path: Path, encoding: str = "auto") -> Container:
    """The container of a file, from its first bytes. Raises DataError for an empty file and for unknown content."""
    with open(path, "rb") as file:
        compression = compression_of(file.read(8))
    try:
        with open_decompressed(path, compression) as file:
            head = file.read(HEAD_BYTES)
    except DECOMPRESSION_ERRORS as error:
        raise DataError(
            f"{path.name} is packed ({compression}) but damaged: {reason_of(error)}.", "Pack it again.", path.name
        ) from error
    if not head.strip(b" \t\r\n\x00" + BOM):
        raise DataError(f"{path.name} is empty.", "Choose a file that holds rows.", path.name)
    if head[:4] == b"PAR1":
        return Container("parquet", compression)
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return Container("arrow", compression)
    if head[:4] == b"PK\x03\x04":
        kind = "a ZIP archive in a packed file" if compression else office(path) or "a ZIP archive inside another"
        if kind != "xlsx":
            hint = "Unpack it, or save the table as CSV." if "archive" in kind else MAKE_HINT
            hint = ANKI_HINT if "Anki" in kind else hint
            raise DataError(f"{path.name} is {kind}, not data.", hint, path.name)
        return Container("xlsx")
    refuse_magic(path, head.removeprefix(BOM), compression)
    return _text_container(path, head, compression, encoding)


def _text_container(path: Path, head: bytes, compression: str, encoding: str) -> Container:
    whole = len(head) < HEAD_BYTES
    encoding = encoding_of(head, path.name, whole) if encoding == "auto" else check_encoding(encoding)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head).lstrip("\ufeff")
    if b"ustar" in head[257:265]:
        hint = f"Unpack it (tar xf {path.name}), and name the folder."
        raise DataError(f"{path.name} is a tar archive.", hint, path.name)
    if 20 * len(CONTROL.findall(text[:4096])) > len(text[:4096]):
        raise DataError(f"{path.name} is a binary file of an unknown kind.", CHOOSE_HINT, path.name)
    endings = {ending.lower() for ending in path.suffixes}
    as_json = not endings.isdisjoint((".json", ".jsonl", ".ndjson"))
    if not as_json:
        refuse_notation(path, text)
    name, dialect = _text_kind(text, whole, not endings.isdisjoint((".csv", ".tsv")), as_json)
    if name == "text" and as_json:
        first = " ".join(text.split("\n")[0].split())[:60]
        hint = "Export it again as JSON, or name it .txt if it is plain text."
        if first.startswith("```"):
            hint = "Take out the lines that begin with ```."
        raise DataError(f"{path.name} is not JSON: it begins with {first!r}.", hint, path.name)
    return Container(name, compression, encoding, dialect)


def _text_kind(text: str, whole: bool, table: bool, as_json: bool) -> tuple[str, Dialect]:
    """(container, dialect) of a text file from its beginning. table, as_json: its name says that it is one."""
    start = text.lstrip()
    if JSON_START.match(start):
        return _json_kind(start, whole), Dialect()
    if start[:2] in ("//", "/*") and "{" in start[:4096] and not table:
        return "json", Dialect()
    if start[:1] == '"' and _is_string(start.split("\n")[0], as_json):
        return "jsonl", Dialect()
    if not table and _is_mostly_json_lines(text):
        return "jsonl", Dialect()
    dialect = None if start.startswith("<|im_start|>") else dialect_of(text, table)
    if dialect is None:
        return ("jsonl" if _is_mostly_json_lines(text) else "text"), Dialect()
    if dialect.drawn:
        return "markdown", dialect
    return ("tsv" if dialect.delimiter == "\t" else "csv"), dialect


def _is_string(line: str, of_words: bool) -> bool:
    """Whether the line is a JSON string that holds JSON; of_words: or anything else."""
    try:
        decoded = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, str) and (of_words or (decoded.lstrip()[:1] in ("{", "[") and _is_value(decoded)))


def _json_kind(start: str, whole: bool) -> str:
    """json (one value, or objects over several lines) or jsonl (a value a line)."""
    lines = [line for line in start.split("\n") if line.strip()]
    if not whole and len(lines) > 1:
        lines.pop()
    if len(lines) == 1:
        return "json" if start[0] == "[" or not _is_value(lines[0]) or rows_within(json.loads(lines[0])) else "jsonl"
    if start[0] == "[" and not _is_value(lines[0].rstrip().rstrip(",")):
        return "json"
    sampled = lines[:50]
    valid = sum(map(_is_value, sampled))
    # JSON Lines with faults: every line begins an object, and most end it
    objects = all(line.lstrip()[:1] == "{" for line in sampled)
    ended = sum(line.rstrip().endswith("}") for line in sampled)
    return "jsonl" if valid and valid * 2 >= len(sampled) or objects and ended * 2 >= len(sampled) else "json"


def _is_value(line: str) -> bool:
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False


def _is_mostly_json_lines(text: str) -> bool:
    """JSON Lines whose first line is no JSON (a comment, a broken line)."""
    lines = [line for line in text.split("\n")[:20] if line.strip()]
    return sum(line.lstrip()[:1] == "{" and _is_value(line) for line in lines) * 2 >= max(len(lines), 1)


def open_bytes(path: Path, container: Container) -> IO[bytes]:
    """The file's bytes, unpacked, in UTF-8 (single bytes may still be broken), from behind a byte order mark."""
    file: Any = open_decompressed(path, container.compression)
    if container.encoding != "utf-8":
        return io.BufferedReader(_Recoded(file, container.encoding), 1 << 20)  # type: ignore[return-value]
    if file.peek(3)[:3] == BOM:
        file.read(3)
    return file


class _Recoded(io.RawIOBase):
    """A file of another encoding, read as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str):
        self.file, self.decoder, self.buffered = file, codecs.getincrementaldecoder(encoding)("replace"), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.buffered:
            data = self.file.read(1 << 16)
            self.buffered = self.decoder.decode(data, final=not data).encode()
            if not data:
                break
        count = min(len(buffer), len(self.buffered))
        buffer[:count], self.buffered = self.buffered[:count], self.buffered[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()
