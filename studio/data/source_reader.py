"""A source as it is read: its files with their containers, its rows block by block, and what the first rows show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import xxhash

from studio.data.block import Block
from studio.data.blocks import blocks
from studio.data.column_names import columns_of
from studio.data.containers import container_of
from studio.data.converter import Converter
from studio.data.dataset_info import limit_of
from studio.data.detect import Detection, detect, match_names
from studio.data.files import Files
from studio.data.formats import as_row, formats
from studio.data.layouts.multiple_choice import FIRST
from studio.data.mapping import (
    LOWERED,
    check_columns,
    format_of,
    lowered,
    normalized_mapping,
    speakers_of,
    with_first_choice,
    with_label_column,
)
from studio.data.parallel import ParallelReaders
from studio.data.problem import Problem, problem
from studio.data.threads import MORE_KEYS, SESSION, ThreadColumns, detect_thread, group_turns
from studio.data.unused import doubts, unused_columns
from studio.errors import DataError

VERSION = 22  # of stored data sets; raise it when a check or a format changes
BINARY_ENDINGS = (".xlsx", ".parquet", ".arrow")
SAMPLE_ROWS = 200  # rows by which columns are judged to be used or not


class SourceReader:
    """The files of a source, each with its container, and their common fingerprint."""

    def __init__(self, files: Files, format: str, mapping: dict[str, Any] | None, encoding: str):
        self.files, self.format, self.mapping = files, format, mapping
        self.containers = [container_of(path, encoding) for path in files.paths]
        self.files.notes += [
            f"The name of {path.name} is not that of its content: it was read as {container.name}."
            for path, container in zip(files.paths, self.containers, strict=True)
            if path.suffix.lower() in BINARY_ENDINGS and path.suffix.lower() != f".{container.name}"
        ][:1]
        self.total = sum(path.stat().st_size for path in files.paths)
        self.limit = limit_of(mapping)
        self.name = files.paths[0].name
        self.fingerprint = self._fingerprint(encoding)

    def blocks(self) -> Iterator[Block]:
        """The rows of all files, up to the limit."""
        remaining, done = self.limit, 0
        for path, container in zip(self.files.paths, self.containers, strict=True):
            for block in blocks(path, container):
                block.done += done
                if self.files.has_channels:
                    block.rows = [r | {"conversation_id": path.parent.name} if r else r for r in block.rows]
                if remaining is not None:
                    block = block.first(remaining)
                    remaining -= len(block.rows)
                yield block
                if remaining == 0:
                    return
            done += path.stat().st_size

    def parallel_readers(self) -> ParallelReaders:
        single_file = len(self.containers) == 1 and self.limit is None
        return ParallelReaders(self.files.paths[0], self.containers[0] if single_file else None)

    @property
    def container(self) -> str:
        """The container in short: jsonl.gz, parquet.zip."""
        return self.containers[0].title + (f".{self.files.archive}" if self.files.archive else "")

    def _fingerprint(self, encoding: str) -> str:
        """A 128-bit hash of the files' bytes and of how they are read."""
        content = xxhash.xxh3_128()
        for path in self.files.paths:
            with open(path, "rb") as file:
                while chunk := file.read(1 << 22):
                    content.update(chunk)
        settings = [VERSION, self.format, self.mapping, encoding, list(map(repr, self.containers)), self.files.notes]
        content.update(json.dumps(settings, sort_keys=True).encode())
        return content.hexdigest()


class Preview(NamedTuple):
    """What the first rows of a source show.

    unused: columns that the format does not read. mapping: as given, or guessed where column names differ from known
    ones only in case. thread: how rows of one turn each form conversations. rows: a sample, where the format was
    detected.
    """

    detection: Detection
    columns: list[str]
    unused: list[str]
    mapping: dict[str, Any] | None
    thread: ThreadColumns | None
    rows: list[Any] = []


def preview(reader: SourceReader) -> Preview:
    """Read the first rows. Raises DataError where there are none, or their layout is unknown."""
    first = next(reader.blocks(), None)
    if first is None or not first.rows:
        raise no_rows_error(reader.name, 0, [])
    if len(first.bad) == len(first.rows):
        kind, value, reason = first.bad[0]
        fault = problem(kind, 1, first.lines[0] if first.lines else None, None, value, reason)
        raise no_rows_error(reader.name, len(first.rows), [fault])
    rows, mapping = first.rows, reader.mapping
    columns = columns_of(list(map(as_row, rows[:SAMPLE_ROWS])))
    check_columns(mapping, columns, reader.name)
    mapping = with_label_column(mapping, rows[:SAMPLE_ROWS])
    mapping, unsure_choice = with_first_choice(mapping, list(map(as_row, rows[:SAMPLE_ROWS])))
    chosen = format_of(mapping) if reader.format == "auto" else reader.format
    speakers = speakers_of(mapping)
    thread = detect_thread(rows, reader.name, speakers) if speakers or not chosen else None
    if thread is None and not chosen and (plain := list(map(lowered, rows))) != rows:
        thread = detect_thread(plain, reader.name)
        thread = thread and replace(thread, is_lowered=True)
    if thread:
        rows = next(group_turns([first], thread)).rows
        used = {*vars(thread).values(), *MORE_KEYS, *(["message"] if thread.conversation == SESSION else [])}
        detection = Detection(chosen, "Chosen by hand.") if chosen else detect(rows, reader.name)
        unused = [c for c in columns if used.isdisjoint((c, *lowered({c: ""})))]
        return Preview(detection, columns, unused, mapping, thread)
    if chosen:
        unused = unused_columns(rows[:SAMPLE_ROWS], Converter(formats()[chosen], mapping))
        return Preview(Detection(chosen, "Chosen by hand."), columns, unused, mapping, None)
    try:
        detection = _detected(rows, mapping, reader.name)
    except DataError:
        found = None if normalized_mapping(mapping) else _by_names(rows, mapping, reader.name)
        if found is None:
            raise
        detection, mapping, unsure_choice = found
    unused = unused_columns(rows[:SAMPLE_ROWS], Converter(formats()[detection.format], mapping))
    doubted = doubts(rows[:SAMPLE_ROWS], detection.format, unused)
    unsure = " ".join(filter(None, [detection.unsure, unsure_choice, *doubted]))
    return Preview(replace(detection, unsure=unsure), columns, unused, mapping, None, rows[:SAMPLE_ROWS])


def _detected(rows: list[Any], mapping: dict[str, Any] | None, name: str) -> Detection:
    return detect(rows, name, {FIRST: mapping[FIRST]} if mapping and FIRST in mapping else None)


def _by_names(
    rows: list[Any], mapping: dict[str, Any] | None, name: str
) -> tuple[Detection, dict[str, Any], str] | None:
    """(detection, mapping, what is not sure of it) where the columns have known names in capitals or in Chinese."""
    plain = list(map(lowered, rows[:SAMPLE_ROWS]))
    if plain != rows[:SAMPLE_ROWS]:
        mapping, unsure = with_first_choice((mapping or {}) | {LOWERED: True}, list(map(as_row, plain)))
        with suppress(DataError):
            return _detected(plain, mapping, name), mapping or {}, unsure
    guess = match_names(columns_of(rows[:SAMPLE_ROWS]), rows[:SAMPLE_ROWS])
    if guess is None:
        return None
    named = ", ".join(f"{column} as {part}" for part, column in guess.items())
    reason = f"The columns were taken by their names: {named}."
    return Detection(format_of(guess) or "alpaca", reason), guess, ""


def no_rows_error(name: str, rows: int, problems: list[Problem], hint: str = "") -> DataError:
    """That a source has no usable row, with its first problem."""
    if not problems:
        return DataError(f"{name} holds no rows.", "Choose a file that holds rows.", name)
    p = problems[0]
    where = f"row {p.row}" + (f", {p.field}" if p.field else "")
    printed = p.kind == "not_json" and p.value.startswith("{'")
    hint = "Python printed these rows; write them with json.dumps." if printed else hint or p.hint
    return DataError(
        f"None of the {rows} rows of {name} can be trained on. The first, {where}: {p.reason} Found: {p.value}",
        hint,
        name,
    )
