"""Reads the rows of a file block by block; memory stays bounded whatever the file's size."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from studio.data.arrow_files import arrow_rows
from studio.data.block import MAX_ROW_BYTES, READ_BYTES, ROWS_PER_BLOCK, Block
from studio.data.compression import DECOMPRESSION_ERRORS
from studio.data.containers import Container, open_bytes
from studio.data.json_lines import json_lines
from studio.data.json_stream import JsonStream, duplicate_key_notes, repair
from studio.data.nested_rows import expand_row, rows_within
from studio.data.sheets import sheet_rows
from studio.data.tables import csv_rows
from studio.errors import DataError, is_disk_full, reason_of
from studio.text.marks import speaker, turns_in


def blocks(path: Path, container: Container) -> Iterator[Block]:
    """The file's rows. Raises DataError where the rest of the file cannot be read."""
    try:
        yield from expand_blocks(_blocks(path, container))
    except DECOMPRESSION_ERRORS as error:
        if is_disk_full(error):
            raise
        hint = "Fetch or pack the file again."
        raise DataError(f"{path.name} breaks off or is damaged: {reason_of(error)}.", hint, path.name) from error


def _blocks(path: Path, container: Container) -> Iterator[Block]:
    if container.name in ("parquet", "arrow"):
        yield from arrow_rows(path, container)
    elif container.name == "xlsx":
        yield from sheet_rows(path, container)
    else:
        tables = dict.fromkeys(("csv", "tsv", "markdown"), csv_rows)
        read = {"jsonl": json_lines, "json": _json, "text": _text, **tables}[container.name]
        with open_bytes(path, container) as file:
            yield from read(file, path.name, container)


def expand_blocks(source: Iterable[Block]) -> Iterator[Block]:
    """The blocks, with rows that hold several rows expanded."""
    return map(_expand, source)


def _expand(block: Block) -> Block:
    rows_of = {
        n: rows
        for n, row in enumerate(block.rows)
        if type(row) is not dict or "instances" in row or "paragraphs" in row
        if (rows := expand_row(row))
    }
    if not rows_of:
        return block
    expanded = Block(lines=None if block.lines is None else [], done=block.done, last=block.last, notes=block.notes)
    for n, row in enumerate(block.rows):
        if n in block.bad:
            expanded.bad[len(expanded.rows)] = block.bad[n]
        if n in block.flagged:
            expanded.flagged[len(expanded.rows)] = block.flagged[n]
        rows = rows_of.get(n, [row])
        expanded.rows += rows
        if expanded.lines is not None:
            expanded.lines += [block.lines[n]] * len(rows)
    return expanded


def _json(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """The rows of a JSON file, in lists or in an object around them. Small files have small errors repaired."""
    head = file.read(MAX_ROW_BYTES)
    if len(head) == MAX_ROW_BYTES:
        yield from _json_rows(JsonStream(file, name, head))
        return
    try:
        file_blocks = list(_json_rows(JsonStream(io.BytesIO(head), name)))
    except DataError as error:
        text, repairs = repair(head.decode("utf-8", "surrogateescape"))
        if not repairs:
            raise
        try:
            file_blocks = list(_json_rows(JsonStream(io.BytesIO(text.encode("utf-8", "surrogateescape")), name)))
        except DataError:
            raise error from None
        file_blocks[0].notes.append(f"The file is not strict JSON: {', '.join(repairs)}.")
    yield from file_blocks


def _json_rows(stream: JsonStream) -> Iterator[Block]:
    block, in_list, lists = Block(), False, 0
    while (char := stream.peek()) != "":
        if char == "[" and not in_list:
            in_list, lists = True, lists + 1
            stream.skip()
            continue
        if char == "]" and in_list:
            in_list = False
            stream.skip()
            if stream.peek() == ",":
                stream.skip()
            continue
        line = stream.line
        value = stream.value()
        if lists and not in_list:
            raise stream.broken("there is more after the end of the list")
        inside = None if in_list else rows_within(value)
        for row in inside or [value]:
            block.add(row, line)
        if inside and (beside := [name for name in value if value[name] is not inside]) and len(beside) < len(value):
            block.notes.append(
                f"The rows stand in a list of the object; not read beside it: {', '.join(beside)[:200]}."
            )
        char = stream.peek()
        if char == ",":  # between objects that no list holds it is too much, and harmless
            stream.skip()
        elif in_list and char != "]":
            raise stream.broken("the list is not closed" if char == "" else "a comma is missing between two rows")
        if len(block.rows) >= ROWS_PER_BLOCK:
            block.done = stream.done
            yield block
            block = Block()
    if in_list:
        raise stream.broken("the list is not closed")
    block.notes += duplicate_key_notes(stream.duplicate_keys)
    if lists > 1:
        block.notes.append(f"{lists} lists stand one behind the other in the file; their rows were joined.")
    block.done = stream.done
    yield block


def _text(file: IO[bytes], name: str, container: Container) -> Iterator[Block]:
    """A row is a conversation between ChatML tags, else a paragraph, else a line; with marks (Q: … A: …) a question."""
    head = file.peek(READ_BYTES) if hasattr(file, "peek") else b""  # type: ignore[attr-defined]
    chatml = head.lstrip().startswith(b"<|im_start|>")
    spoken = turns_in(head.decode(errors="replace").strip()) is not None
    paragraphs = not chatml and b"\n\n" in head.replace(b"\r", b"").strip()
    block, paragraph, first_line = Block(), [], 1
    if spoken:
        block.notes.append("Marks in the text say who speaks; a row begins with every question behind an answer.")
    for number, raw in enumerate(file, 1):
        line = raw.decode("utf-8", errors="surrogateescape").rstrip("\r\n")
        block.done += len(raw)
        begins = True
        if chatml:
            begins = _begins_conversation(paragraph, line)
        elif paragraphs and paragraph:
            begins = bool(line.strip()) and not paragraph[-1].strip()
        if spoken and begins and paragraph:
            begins = speaker(line) == "user" and any(speaker(before) == "assistant" for before in paragraph)
        if paragraph and begins:
            block.add({"text": "\n".join(paragraph).strip("\n")}, first_line)
            paragraph = []
        if line.strip() or paragraph:
            first_line = first_line if paragraph else number
            paragraph.append(line)
        if len(block.rows) >= ROWS_PER_BLOCK:
            yield block
            block = Block(done=block.done)
    if paragraph:
        block.add({"text": "\n".join(paragraph).strip("\n")}, first_line)
    yield block


def _begins_conversation(paragraph: list[str], line: str) -> bool:
    """Whether a conversation begins: with a system turn, or with a question where those before have no system turn."""
    if line.startswith("<|im_start|>system"):
        return True
    if not line.startswith("<|im_start|>user") or any(before.startswith("<|im_start|>system") for before in paragraph):
        return False
    return any(before.startswith("<|im_start|>assistant") for before in paragraph)
