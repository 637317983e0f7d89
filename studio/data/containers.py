"""From a file to rows: JSON, JSON Lines, CSV, TSV, Parquet, Arrow, plain text, and gzip of these, block by block.

What a file is, its first bytes say, never its name. A block is a few megabytes, so that memory stays bounded.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from studio.errors import DataError

BLOCK = 8 << 20  # bytes


@dataclass
class Block:
    """Rows in file order. line: where each begins, from 1 (None: the file has no lines). bad: rows that are no data.

    bad: (index in rows, kind, value, reason); such an entry of rows is None. done: bytes of the file read so far.
    """

    rows: list[Any]
    lines: list[int] | None
    done: int
    bad: list[tuple[int, str, Any, str]] = field(default_factory=list)


def container_of(path: Path) -> tuple[str, bool]:
    """(json | jsonl | csv | tsv | parquet | arrow | text, is it gzip). Raises DataError for what cannot be data."""
    with _open(path) as file:
        head = file.read(1 << 16)
    return name_of(head, path.name), _is_gzip(path)


def name_of(head: bytes, name: str) -> str:
    """The container told from the first bytes."""
    if not head.strip():
        raise DataError(f"{name} is empty.", "Choose a file that holds rows.", name)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)
        try:
            whole = isinstance(orjson.loads(first[0]), (dict, list))
        except orjson.JSONDecodeError:
            whole = False
        return "jsonl" if whole and not (len(first) == 1 and first[0][:1] == b"[") else "json"
    raise DataError(f"{name} is not JSON.", "Choose a JSON, JSON Lines, CSV or Parquet file.", name)


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _is_gzip(path) else open(path, "rb")  # type: ignore[return-value]


def blocks(path: Path, container: str) -> Iterator[Block]:
    """The file's rows, block by block."""
    if container == "jsonl":
        yield from _json_lines(path)
    else:
        data = path.read_bytes()
        try:
            rows = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise DataError(f"{path.name} is not JSON: {error}.", "Correct that place, or export it again.", path.name) from error
        yield Block(rows if isinstance(rows, list) else [rows], None, len(data))


def _json_lines(path: Path) -> Iterator[Block]:
    line, done, rest = 1, 0, b""
    with _open(path) as file:
        while piece := file.read(BLOCK):
            done += len(piece)
            whole, mark, tail = (rest + piece).rpartition(b"\n")
            if not mark:
                rest = tail
                continue
            rest = tail
            yield _parsed(whole, line, done)
            line += whole.count(b"\n") + 1
    if rest.strip():
        yield _parsed(rest, line, done)


def _parsed(data: bytes, first: int, done: int) -> Block:
    block = Block([], [], done)
    for n, text in enumerate(data.split(b"\n"), first):
        if not text.strip():
            continue
        try:
            block.rows.append(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            block.bad.append((len(block.rows), "not_json", text.decode(errors="replace"), f"Line {n} is not JSON: {error.msg}."))
            block.rows.append(None)
        block.lines.append(n)
    return block
