"""From a file to rows, block by block, so that memory stays bounded whatever the file's size."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import orjson

from studio.data.block import LINES_BYTES, MAX_ROW_BYTES, READ_BYTES, ROWS_PER_BLOCK, Block
from studio.data.compression import DECOMPRESSION_ERRORS
from studio.data.containers import Container, open_bytes
from studio.data.json_stream import JsonStream, duplicate_key_notes, object_noting_duplicates, row_too_long
from studio.data.lenient_json import repair
from studio.data.nested_rows import expand_row, rows_within
from studio.data.tables import arrow_rows, csv_rows, sheet_rows
from studio.errors import DataError

LOOKED_AT = 200  # lines


def blocks(path: Path, container: Container) -> Iterator[Block]:
    """The file's rows. Raises DataError where the rest of the file cannot be read."""
    try:
        yield from expand_blocks(_blocks(path, container))
    except DECOMPRESSION_ERRORS as error:
        raise DataError(
            f"{path.name} breaks off or is damaged: {error}.", "Fetch or pack the file again.", path.name
        ) from error


def _blocks(path: Path, container: Container) -> Iterator[Block]:
    if container.name in ("parquet", "arrow"):
        yield from arrow_rows(path, container)
    elif container.name == "xlsx":
        yield from sheet_rows(path, container)
    else:
        read = {"jsonl": json_lines, "json": _json, "csv": csv_rows, "tsv": csv_rows, "text": _text}[container.name]
        with open_bytes(path, container) as file:
            yield from read(file, path.name, container)


def expand_blocks(found: Iterable[Block]) -> Iterator[Block]:
    """The blocks, with each of several rows that stand in one as a row of its own."""
    return map(_expand, found)


def _expand(block: Block) -> Block:
    found = {
        n: rows
        for n, row in enumerate(block.rows)
        if type(row) is not dict or "instances" in row
        if (rows := expand_row(row))
    }
    if not found:
        return block
    made = Block(lines=None if block.lines is None else [], done=block.done, last=block.last, notes=block.notes)
    for n, row in enumerate(block.rows):
        if n in block.bad:
            made.bad[len(made.rows)] = block.bad[n]
        rows = found.get(n, [row])
        made.rows += rows
        if made.lines is not None:
            made.lines += [block.lines[n]] * len(rows)
    return made


def json_lines(
    file: IO[bytes], name: str, container: Container | None = None, limit: int | None = None
) -> Iterator[Block]:
    """A row a line. limit: bytes to read, counted from where the file stands; a line begun within them is finished."""
    first, done = 1, 0
    while (limit is None or done < limit) and (
        data := file.read(LINES_BYTES if limit is None else min(LINES_BYTES, limit - done))
    ):
        if not data.endswith(b"\n"):
            data += (rest := file.readline(MAX_ROW_BYTES))
            if len(rest) == MAX_ROW_BYTES and not rest.endswith(b"\n"):
                raise row_too_long(name, first + data.count(b"\n"))
        done += len(data)
        texts = data.split(b"\n")
        if not texts[-1]:
            texts.pop()
        block = parse_lines(texts, range(first, first + len(texts)), done)
        if first == 1:
            block.notes += _twice(texts[:LOOKED_AT])
        first += len(texts)
        block.last = first - 1
        yield block


def _twice(texts: list[bytes]) -> list[str]:
    """What is to be said of keys that stand twice in one of these lines. Only some are looked at: a program that writes them does so in every row."""
    found: dict[str, None] = {}
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text, object_pairs_hook=lambda pairs: object_noting_duplicates(pairs, found))
    return duplicate_key_notes(found)


def parse_lines(texts: list[bytes], numbers: Sequence[int], done: int) -> Block:
    """A block from lines. numbers: of each line in the file."""
    try:
        rows = list(map(orjson.loads, texts))
    except orjson.JSONDecodeError:
        return _one_by_one(texts, numbers, done)
    return Block(rows, list(numbers), done)


def _one_by_one(texts: list[bytes], numbers: Sequence[int], done: int) -> Block:
    block = Block(done=done)
    for line, text in zip(numbers, texts, strict=True):
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
        block.add_bad(
            line,
            "encoding",
            value,
            f"Line {line} holds bytes that are not UTF-8 (byte {broken.start + 1} of the line).",
        )
    except (ValueError, RecursionError):
        block.add_bad(
            line,
            "not_json",
            text.decode(errors="replace"),
            f"Line {line} is not JSON: {error.msg} at character {error.colno}.",
        )


def _json(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """Rows in lists, one after the other, or in an object whose only list they are. A file of moderate size may have small faults."""
    head = file.read(MAX_ROW_BYTES)
    if len(head) == MAX_ROW_BYTES:
        yield from _strict(JsonStream(file, name, head))
        return
    try:
        found = list(_strict(JsonStream(io.BytesIO(head), name)))
    except DataError as error:
        text, what = repair(head.decode("utf-8", "surrogateescape"))
        if not what:
            raise
        try:
            found = list(_strict(JsonStream(io.BytesIO(text.encode("utf-8", "surrogateescape")), name)))
        except DataError:
            raise error from None
        found[0].notes.append(f"The file is not strict JSON: {', '.join(what)}.")
    yield from found


def _strict(stream: JsonStream) -> Iterator[Block]:
    block, opened, lists = Block(), False, 0
    while (sign := stream.peek()) != "":
        if sign == "[" and not opened:
            opened, lists = True, lists + 1
            stream.skip()
            continue
        if sign == "]" and opened:
            opened = False
            stream.skip()
            if stream.peek() == ",":
                stream.skip()
            continue
        line = stream.line
        value = stream.value()
        if lists and not opened:
            raise stream.broken("there is more after the end of the list")
        for row in [value] if opened else rows_within(value) or [value]:
            block.add(row, line)
        sign = stream.peek()
        if sign == ",":  # between objects that no list holds it is too much, and harmless
            stream.skip()
        elif opened and sign != "]":
            raise stream.broken("the list is not closed" if sign == "" else "a comma is missing between two rows")
        if len(block.rows) >= ROWS_PER_BLOCK:
            block.done = stream.done
            yield block
            block = Block()
    if opened:
        raise stream.broken("the list is not closed")
    block.notes += duplicate_key_notes(stream.duplicate_keys)
    if lists > 1:
        block.notes.append(f"{lists} lists stand one behind the other in the file; their rows were joined.")
    block.done = stream.done
    yield block


def _text(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """Conversations where there are ChatML tags; else paragraphs, parted by blank lines; else a row a line."""
    begin = file.peek(READ_BYTES) if hasattr(file, "peek") else b""  # type: ignore[attr-defined]
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
        if len(block.rows) >= ROWS_PER_BLOCK:
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
