"""From a file to rows, block by block, so that memory stays bounded whatever the file's size."""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from studio.data.containers import LISTS, Container, open_bytes, rows_within
from studio.errors import DataError

SIZE = 1 << 20  # bytes read at a time: small enough to stay in the processor's cache
ROWS = 1000  # rows of a block where a file is not read by bytes


@dataclass
class Block:
    """Rows in file order. lines: where each begins, from 1 (None: the file has no lines). bad: rows that are no data.

    bad: {index in rows: (kind, value, reason)}; such an entry of rows is None. done: bytes of the file read so far.
    """

    rows: list[Any] = field(default_factory=list)
    lines: list[int] | None = field(default_factory=list)
    done: int = 0
    bad: dict[int, tuple[str, Any, str]] = field(default_factory=dict)

    def add(self, row: Any, line: int) -> None:
        self.rows.append(row)
        self.lines.append(line)  # type: ignore[union-attr]

    def spoil(self, line: int, kind: str, value: Any, reason: str) -> None:
        self.bad[len(self.rows)] = (kind, value, reason)
        self.add(None, line)


def blocks(path: Path, container: Container) -> Iterator[Block]:
    """The file's rows. Raises DataError where the rest of the file cannot be read."""
    try:
        if container.name in ("parquet", "arrow"):
            yield from _tables(path, container)
            return
        with open_bytes(path, container) as file:
            yield from {"jsonl": json_lines, "json": _json, "csv": _csv, "tsv": _csv, "text": _text}[container.name](file, path.name, container)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path.name} breaks off or is damaged: {error}.", "Fetch or pack the file again.", path.name) from error


def json_lines(file: IO[bytes], name: str, container: Container | None = None, limit: int | None = None) -> Iterator[Block]:
    """A row a line. limit: bytes to read, counted from where the file stands; a line begun within them is finished."""
    line, done = 1, 0
    while (limit is None or done < limit) and (texts := file.readlines(SIZE if limit is None else min(SIZE, limit - done))):
        done += sum(map(len, texts))
        yield parse_lines(texts, line, done)
        line += len(texts)


def parse_lines(texts: list[bytes], first: int, done: int) -> Block:
    """A block from lines. first: the number of its first line."""
    try:
        rows = list(map(orjson.loads, texts))
    except orjson.JSONDecodeError:
        return _one_by_one(texts, first, done)
    return Block(rows, list(range(first, first + len(rows))), done)


def _one_by_one(texts: list[bytes], first: int, done: int) -> Block:
    block = Block(done=done)
    for line, text in enumerate(texts, first):
        text = text.strip(b" \t\r\n\x00" if line > 1 else b" \t\r\n\x00\xef\xbb\xbf")
        if not text:
            continue
        try:
            block.add(orjson.loads(text), line)
        except orjson.JSONDecodeError as error:
            _second_try(block, text, line, error)
    return block


def _second_try(block: Block, text: bytes, line: int, error: orjson.JSONDecodeError) -> None:
    """What orjson refuses and the json module reads: NaN, numbers beyond 64 bits, half surrogates."""
    try:
        block.add(json.loads(text), line)
    except UnicodeDecodeError as broken:
        value = text.decode(errors="replace")
        block.spoil(line, "encoding", value, f"Line {line} holds bytes that are not UTF-8 (byte {broken.start + 1} of the line).")
    except (ValueError, RecursionError):
        block.spoil(line, "not_json", text.decode(errors="replace"), f"Line {line} is not JSON: {error.msg} at character {error.colno}.")


def _json(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """One array of rows, or objects one after the other, or an object whose only list is the rows; read as a stream."""
    stream, block = _Stream(file, name), Block()
    opened = stream.peek() == "["
    if opened:
        stream.skip()
    while (sign := stream.peek()) != "":
        if sign == "]" and opened:
            stream.skip()
            if stream.peek():
                raise stream.broken("there is more after the end of the list")
            break
        line = stream.line
        value = stream.value()
        for row in [value] if opened else rows_within(value) or [value]:
            block.add(row, line)
        sign = stream.peek()
        if sign == "," and opened:
            stream.skip()
        elif opened and sign != "]":
            raise stream.broken("the list is not closed" if sign == "" else "a comma is missing between two rows")
        if len(block.rows) >= ROWS:
            block.done = stream.done
            yield block
            block = Block()
    block.done = stream.done
    yield block


class _Stream:
    """JSON values from a file of any size, each with its line. Holds little more than the value it is at."""

    def __init__(self, file: IO[bytes], name: str):
        self.file, self.name, self.text, self.at, self.line, self.done, self.ended = file, name, "", 0, 1, 0, False
        self.decoder, self.json = codecs.getincrementaldecoder("utf-8")("surrogateescape"), json.JSONDecoder()

    def more(self, size: int = SIZE) -> bool:
        data = self.file.read(size)
        self.done += len(data)
        self.ended = not data
        self.text = self.text[self.at :] + self.decoder.decode(data, final=not data)
        self.at = 0
        return not self.ended

    def peek(self) -> str:
        """The next sign that is not blank; "" at the end."""
        while True:
            while self.at < len(self.text):
                sign = self.text[self.at]
                if sign not in " \t\r\n\ufeff":
                    return sign
                self.line += sign == "\n"
                self.at += 1
            if not self.more():
                return ""

    def skip(self) -> None:
        self.at += 1

    def value(self) -> Any:
        size = SIZE
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.line += self.text.count("\n", self.at, end)
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended or (error.pos < len(self.text) - 64 and not error.msg.startswith(("Unterminated", "Expecting value", "Invalid"))):
                    self.line += self.text.count("\n", self.at, error.pos)
                    raise self.broken(_in_words(error)) from error
            except RecursionError as error:
                raise self.broken("it is nested too deeply") from error
            except ValueError as error:  # a number of thousands of digits
                raise self.broken(str(error).partition(";")[0]) from error
            size *= 2  # reading twice as much each time keeps the work linear
            self.more(size)

    def broken(self, why: str) -> DataError:
        return DataError(f"{self.name} is not whole JSON: line {self.line}: {why}.", "Correct that line, or export the file again.", f"{self.name}:{self.line}")


def _in_words(error: json.JSONDecodeError) -> str:
    near = " ".join(error.doc[max(0, error.pos - 20) : error.pos + 20].split())
    return f"{error.msg} (near {near!r})"


def _csv(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    csv.field_size_limit(1 << 30)
    text = codecs.getreader("utf-8")(file, errors="surrogateescape")
    reader = csv.reader((line.replace("\x00", "") for line in text), delimiter=container.delimiter)
    block, header, line = Block(), None, 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            block.spoil(line, "columns", "", f"Line {line}: {error}.")
            cells = []
        if cells is None:
            break
        if cells and any(cells):
            if header is None:
                header = [cell.strip().lstrip("\ufeff") for cell in cells]
            elif len(cells) != len(header):
                reason = f"Line {line} has {len(cells)} cells, the header {len(header)}."
                block.spoil(line, "columns", container.delimiter.join(cells), reason)
            else:
                block.add(_row(header, cells), line)
        line = reader.line_num + 1
        if len(block.rows) >= ROWS:
            yield block
            block = Block()
    yield block


def _row(header: list[str], cells: list[str]) -> dict[str, Any]:
    """A table's row; a list of turns written into a cell as JSON (or as Python prints it) is read."""
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in LISTS:
        cell = row.get(name)
        if isinstance(cell, str) and cell[:1] in ("[", "{") and len(cell) < 1_000_000:
            try:
                row[name] = json.loads(cell)
            except (ValueError, RecursionError):
                try:
                    row[name] = ast.literal_eval(cell)
                except (ValueError, SyntaxError, RecursionError, MemoryError):
                    continue
    return row


def _text(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """Conversations where there are ChatML tags; else paragraphs, parted by blank lines; else a row a line."""
    begin = file.peek(SIZE) if hasattr(file, "peek") else b""  # type: ignore[attr-defined]
    if begin.lstrip().startswith(b"<|im_start|>"):
        opens = _tagged
    elif b"\n\n" in begin.replace(b"\r", b"").strip():
        opens = _after_blank
    else:
        opens = _every_line
    block, held, begun = Block(), [], 1
    for number, raw in enumerate(file, 1):
        line = raw.decode("utf-8", errors="surrogateescape").rstrip("\r\n")
        block.done += len(raw)
        if held and opens(held, line):
            block.add({"text": "\n".join(held).strip("\n")}, begun)
            held = []
        if line.strip() or held:
            begun = begun if held else number
            held.append(line)
        if len(block.rows) >= ROWS:
            yield block
            block = Block(done=block.done)
    if held:
        block.add({"text": "\n".join(held).strip("\n")}, begun)
    yield block


def _every_line(held: list[str], line: str) -> bool:
    return True


def _after_blank(held: list[str], line: str) -> bool:
    return bool(line.strip()) and not held[-1].strip()


def _tagged(held: list[str], line: str) -> bool:
    """A new conversation begins with a system turn, or with a question where the ones before began with one too."""
    if line.startswith("<|im_start|>system"):
        return True
    alone = not any(h.startswith("<|im_start|>system") for h in held)
    return alone and line.startswith("<|im_start|>user") and any(h.startswith("<|im_start|>assistant") for h in held)


def _tables(path: Path, container: Container) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = 0
    try:
        source = pa.BufferReader(gzip.decompress(path.read_bytes())) if container.gz else pa.memory_map(str(path))
        batches = pq.ParquetFile(source).iter_batches(batch_size=ROWS) if container.name == "parquet" else _arrow_batches(pa, source)
        for batch in batches:
            done += batch.nbytes
            for start in range(0, batch.num_rows, ROWS):
                yield Block([_cells(row) for row in batch.slice(start, ROWS).to_pylist()], None, min(done, path.stat().st_size))
    except pa.ArrowException as error:
        raise DataError(f"{path.name} is a damaged {container.name} file: {error}.", "Write the file again.", path.name) from error


def _arrow_batches(pa: Any, source: Any) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(source)
        for n in range(reader.num_record_batches):
            yield reader.get_batch(n)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {key: json.loads(value) if key in LISTS and isinstance(value, str) and _is_list(value) else value for key, value in row.items()}


def _is_list(text: str) -> bool:
    try:
        return text[:1] == "[" and isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False
