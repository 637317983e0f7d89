"""read: any source in, a Dataset out. Checked once; asked for again, it is opened from where it is kept."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from studio.data import store
from studio.data.block import Block
from studio.data.blocks import blocks
from studio.data.chunk import normalized_hash
from studio.data.containers import container_of
from studio.data.converter import Converter
from studio.data.dataset import Conversations, Dataset
from studio.data.detect import Detection, columns_of, detect, match_ignoring_case, suggest_mapping
from studio.data.files import Files
from studio.data.formats import as_row, formats
from studio.data.hub import is_hub_id, path_of
from studio.data.mapping import (
    check_columns,
    format_of,
    limit_of,
    normalized_mapping,
    notes_of,
    resolve_entry,
    with_label_column,
)
from studio.data.parallel import ParallelReaders
from studio.data.problem import KINDS, MAX_DETAILED_PER_KIND, Problem, problem
from studio.data.repeats import repeated
from studio.data.sample import sample_path
from studio.data.shard import Shard, read_blocks
from studio.data.threads import Thread, detect_thread, group_turns
from studio.data.tracked_row import TrackedRow, names_of
from studio.errors import DataError

Report = Callable[[int, int], None]
VERSION = 9  # of what is stored; raise it when a check or a format changes
STYLES = (
    "unfinished",
    "too_short",
)  # kinds that are no fault but the style of the answers, where a STYLE share of them has it
STYLE = 0.3
ALIKE = "But for case, spaces and punctuation the same stands in row {}."
LOOKED_AT = 200  # rows by which columns are judged to be used or not


def read(source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, report: Report | None = None,
         encoding: str = "auto") -> Dataset:  # fmt: skip
    """Read and check a file, a folder or pattern of shards, a ZIP, `sample:NAME`, a Hub data set (id, with an optional :split), or an
    entry of a dataset_info.json:NAME.

    report(done_bytes, total_bytes) is called as it goes, from the calling thread or another. encoding: of text files.
    Raises DataError for what is hopeless: no such file, nothing in it, not JSON, no known columns, no usable row.
    """
    source, mapping = resolve_entry(str(source), mapping)
    path = locate(source)
    if format != "auto" and format not in formats():
        raise DataError(
            f"There is no format named {format!r}.", f"The formats are: auto, {', '.join(formats())}.", "data.format"
        )
    normalized_mapping(mapping)
    with Files(path) as files:
        reader = SourceReader(files, format, mapping, encoding)
        folder = store.folder_of(reader.fingerprint)
        if not (folder / "studio.json").is_file():
            made = store.new_folder()
            try:
                _read_into(made, reader, report or (lambda done, total: None))
                folder = store.publish(made, reader.fingerprint)
            finally:
                if made.exists():
                    shutil.rmtree(made)
        elif report:
            report(reader.total, reader.total)
    return store.load(str(source), folder)


@contextmanager
def open_source(
    source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, encoding: str = "auto"
) -> Iterator[tuple[Preview, Iterator[Block]]]:
    """What the first rows of a source say, and its rows as they stand there, numbered as `read` numbers them. Raises DataError."""
    source, mapping = resolve_entry(str(source), mapping)
    with Files(locate(source)) as files:
        reader = SourceReader(files, format, mapping, encoding)
        first = _first_look(reader)
        yield first, reader.blocks() if first.thread is None else group_turns(reader.blocks(), first.thread)


def locate(source: str | Path) -> Path:
    """The file, folder or pattern a source names; a Hub data set is fetched first."""
    text = str(source)
    if text == "sample" or text.startswith("sample:"):
        return sample_path(text)
    path = Path(text).expanduser()
    if (
        path.is_dir()
        or path.is_file()
        or (glob.has_magic(text) and ("/" in text or "." in text) and not is_hub_id(text))
    ):
        return path
    if is_hub_id(text):
        return path_of(text)
    raise DataError(
        f"There is no file {text!r}.",
        "Check the path; a Hub data set is written owner/name, with :split if need be.",
        "data.train",
    )


class SourceReader:
    """What is to be read: files, each in its container, under one fingerprint."""

    def __init__(self, files: Files, format: str, mapping: dict[str, Any] | None, encoding: str):
        self.files, self.format, self.mapping = files, format, mapping
        self.containers = [container_of(path, encoding) for path in files.paths]
        self.total = sum(path.stat().st_size for path in files.paths)
        self.limit = limit_of(mapping)
        self.name = files.paths[0].name
        self.fingerprint = self._bits(encoding)

    def blocks(self) -> Iterator[Block]:
        """The rows of all files, up to the limit."""
        left, done = self.limit, 0
        for path, container in zip(self.files.paths, self.containers, strict=True):
            for block in blocks(path, container):
                block.done += done
                if left is not None:
                    block = block.first(left)
                    left -= len(block.rows)
                yield block
                if left == 0:
                    return
            done += path.stat().st_size

    def parallel_readers(self) -> ParallelReaders:
        alone = len(self.containers) == 1 and self.limit is None
        return ParallelReaders(self.files.paths[0], self.containers[0] if alone else None)

    @property
    def container(self) -> str:
        """In short: jsonl.gz, parquet.zip."""
        return self.containers[0].title + (f".{self.files.packed}" if self.files.packed else "")

    def _bits(self, encoding: str) -> str:
        """128 bits over the files' bytes and how they are read: the same bytes as another container are another data set."""
        content = xxhash.xxh3_128()
        for path in self.files.paths:
            with open(path, "rb") as file:
                while piece := file.read(1 << 22):
                    content.update(piece)
        how = [VERSION, self.format, self.mapping, encoding, list(map(repr, self.containers)), self.files.notes]
        content.update(json.dumps(how, sort_keys=True).encode())
        return content.hexdigest()


class Preview(NamedTuple):
    """What the first rows say: the format, the columns and those of them that nothing is made of, the mapping, and how turns belong together.

    The mapping is a guess where only the case of known names differs. rows: some of them, where nothing was chosen by hand.
    """

    found: Detection
    columns: list[str]
    unused: list[str]
    mapping: dict[str, Any] | None
    thread: Thread | None
    rows: list[Any] = []


def _read_into(folder: Path, reader: SourceReader, report: Report) -> None:
    with reader.parallel_readers() as readers:
        first = _first_look(reader)
        if readers.processes and first.thread is None:
            shards = readers.read(first.found.format, first.mapping, folder, report)
        else:
            found = reader.blocks() if first.thread is None else group_turns(reader.blocks(), first.thread)
            done = partial(_reported, report, reader.total)
            shards = [read_blocks(found, first.found.format, first.mapping, folder / "part-0.arrow", done)]
    _gather(reader, first, shards, folder)


def _reported(report: Report, total: int, done: int) -> None:
    report(min(done, total), total)


def _first_look(reader: SourceReader) -> Preview:
    first = next(reader.blocks(), None)
    if first is None or not first.rows:
        raise _nothing(reader.name, 0, [])
    if len(first.bad) == len(first.rows):
        kind, value, reason = first.bad[0]
        raise _nothing(
            reader.name,
            len(first.rows),
            [problem(kind, 1, first.lines[0] if first.lines else None, None, value, reason)],
        )
    rows, mapping = first.rows, reader.mapping
    columns = columns_of(list(map(as_row, rows[:LOOKED_AT])))
    check_columns(mapping, columns, reader.name)
    mapping = with_label_column(mapping, rows[:LOOKED_AT])
    chosen = format_of(mapping) if reader.format == "auto" else reader.format
    if chosen:
        return Preview(Detection(chosen, "Chosen by hand."), columns, _unused(rows, chosen, mapping), mapping, None)
    if thread := detect_thread(rows, reader.name):
        rows = next(group_turns([first], thread)).rows
        used = {getattr(thread, name) for name in ("role", "content", "conversation", "place", "member", "parent")}
        return Preview(detect(rows, reader.name), columns, [c for c in columns if c not in used], None, thread)
    try:
        found = detect(rows, reader.name)
    except DataError:
        guess = match_ignoring_case(columns) if not normalized_mapping(mapping) else None
        if guess is None:
            raise
        named = ", ".join(f"{column} as {part}" for part, column in guess.items())
        found, mapping = (
            Detection(format_of(guess) or "alpaca", f"The columns were taken without regard to case: {named}."),
            guess,
        )
    return Preview(found, columns, _unused(rows, found.format, mapping), mapping, None, rows[:LOOKED_AT])


def _unused(rows: list[Any], format: str, mapping: dict[str, Any] | None) -> list[str]:
    """The columns that hold something, and that no row that can be used was asked for."""
    convert, seen, named = Converter(formats()[format], mapping), set(), {}
    for row in map(as_row, rows[:LOOKED_AT]):
        if isinstance(row, dict) and convert(TrackedRow(row, seen), lambda *_: None) is not None:
            named |= dict.fromkeys(names_of(row))
    return [
        name
        for name in named
        if name not in seen and (name in named and name.partition("[].")[0] in seen or "[]." not in name)
    ]


def columns(source: str | Path, encoding: str = "auto") -> list[str]:
    """The columns of a file's first rows, to be named by hand. Raises DataError where it has no rows."""
    with Files(locate(source)) as files:
        first = next(SourceReader(files, "auto", None, encoding).blocks(), None)
    return columns_of(list(map(as_row, first.rows[:LOOKED_AT]))) if first else []


def _gather(reader: SourceReader, first: Preview, shards: list[Shard], folder: Path) -> None:
    """Join the parts, look for repeats over all of them, and write down what was found."""
    problems, rows, files, first_row, first_line = [], {}, [], 0, 0
    for n, shard in enumerate(shards):
        name = f"data-{n:05}-of-{len(shards):05}.arrow"
        (folder / shard.file).rename(folder / name)
        files.append((name, first_row, first_line))
        problems += [_moved(p, first_row, first_line) for p in shard.problems]
        for kind, numbers in shard.by_kind.items():
            rows.setdefault(kind, []).append(np.frombuffer(numbers, np.int64) + first_row)
        first_row, first_line = first_row + shard.rows, first_line + shard.lines
    by_kind = {kind: np.unique(np.concatenate(parts)) for kind, parts in rows.items()}
    kept = sum(shard.kept for shard in shards)
    if not kept:
        way = (
            suggest_mapping(first.rows, problems[0].kind, problems[0].field or "", first.found.format)
            if problems
            else ""
        )
        raise _nothing(reader.name, first_row, problems, way)
    for kind in STYLES:
        if len(by_kind.get(kind, ())) > max(STYLE * kept, 3):
            by_kind.pop(kind)
            problems = [p for p in problems if p.kind != kind]
    hashes = {key: np.concatenate([getattr(shard, key) for shard in shards]) for key in ("exact", "endings")}
    notes = list(
        dict.fromkeys(
            [
                *reader.files.notes,
                *(note for shard in shards for note in shard.notes),
                *notes_of(reader.mapping, reader.files.paths),
            ]
        )
    )
    about = {
        "format": first.found.format, "container": reader.container, "rows": first_row, "fingerprint": reader.fingerprint,
        "columns": first.columns, "reason": first.found.reason, "unsure": first.found.unsure, "files": files, "kept": kept,
        "unused": first.unused, "notes": notes, "encoding": reader.containers[0].encoding,
    }  # fmt: skip
    encoding = reader.containers[0].encoding
    if not encoding.startswith("utf-"):
        problems.append(
            problem(
                "legacy_encoding", 1, 1, None, encoding, f"The file is not written in UTF-8: it was read as {encoding}."
            )
        )
        by_kind["legacy_encoding"] = np.array([1])
    more, more_rows = _repeats(store.Parts(folder, files), hashes["exact"], hashes["endings"])
    problems = sorted([*problems, *more], key=lambda p: (p.row, list(KINDS).index(p.kind)))
    store.write(folder, about, problems, by_kind | more_rows, hashes)


def _moved(p: Problem, rows: int, lines: int) -> Problem:
    if not rows:
        return p
    line = None if p.line is None else p.line + lines
    reason = p.reason.replace(f"Line {p.line} ", f"Line {line} ") if p.line else p.reason
    return Problem(p.row + rows, line, p.field, p.kind, p.severity, p.value, reason, p.hint)


def _repeats(parts: store.Parts, exact: np.ndarray, endings: np.ndarray) -> tuple[list[Problem], dict[str, np.ndarray]]:
    """Rows of the whole data set that say the same as an earlier one, or the same but for case, blanks and punctuation."""
    conversations, problems, rows = Conversations(parts.table), [], {}
    numbers, same = conversations.row_numbers, list(repeated(exact))
    again = {index for index, _ in same}
    near = [pair for pair in _near(conversations, exact, endings, parts.forget) if pair[0] not in again]
    for kind, pairs, words in (("duplicate", same, "The same stands in row {}."), ("near_duplicate", near, ALIKE)):
        if pairs:
            rows[kind] = numbers[[index for index, _ in pairs]]
        for index, earlier in pairs[:MAX_DETAILED_PER_KIND]:
            said = conversations[index]
            value = said.get("text") or said["messages"][0]["content"]
            problems.append(problem(kind, said["row"], said["line"], None, value, words.format(numbers[earlier])))
    return problems, rows


def _near(
    conversations: Conversations, exact: np.ndarray, endings: np.ndarray, forget: Callable[[], None]
) -> Iterator[tuple[int, int]]:
    """(index, index of an earlier row) of rows with the same text but for case, blanks and punctuation.

    Only rows that begin and end alike are compared; forget() gives back the memory that reading them took.
    """
    pairs = [(later, earlier) for later, earlier in repeated(endings) if exact[later] != exact[earlier]]
    candidates = np.unique(np.array(pairs, np.int64))
    chosen = conversations.take(candidates)
    hashes = np.empty(len(candidates), np.uint64)
    for start in range(0, len(candidates), 100):  # each row may touch many pages
        batch = chosen.batch(start, 100)
        hashes[start : start + len(batch)] = list(map(normalized_hash, batch))
        forget()
    for later, earlier in repeated(hashes):
        yield int(candidates[later]), int(candidates[earlier])


def _nothing(name: str, rows: int, problems: list[Problem], way: str = "") -> DataError:
    if not problems:
        return DataError(f"{name} holds no rows.", "Choose a file that holds rows.", name)
    p = problems[0]
    where = f"row {p.row}" + (f", {p.field}" if p.field else "")
    printed = p.kind == "not_json" and p.value.startswith("{'")
    hint = "Python printed these rows; write them with json.dumps." if printed else way or p.hint
    return DataError(
        f"None of the {rows} rows of {name} can be trained on. The first, {where}: {p.reason} Found: {p.value}",
        hint,
        name,
    )
