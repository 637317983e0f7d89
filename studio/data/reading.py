"""read(): any source as a checked Dataset. The result is stored; the same source is not read again."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from studio.data.threads import ThreadColumns, detect_thread, group_turns
from studio.data.tracked_row import TrackedRow, names_of
from studio.errors import DataError

Report = Callable[[int, int], None]
VERSION = 9  # of stored data sets; raise it when a check or a format changes
# where more than STYLE_SHARE of the answers have one of these kinds, it is the style of the data and no problem
STYLE_KINDS = ("unfinished", "too_short")
STYLE_SHARE = 0.3
NEAR_DUPLICATE_REASON = "But for case, spaces and punctuation the same stands in row {}."
SAMPLE_ROWS = 200  # rows by which columns are judged to be used or not


def read(
    source: str | Path,
    format: str = "auto",
    mapping: dict[str, Any] | None = None,
    report: Report | None = None,
    encoding: str = "auto",
) -> Dataset:
    """Read and check a source: a file, a folder or pattern of shards, a ZIP archive, `sample:NAME`, a Hub data set
    (owner/name, with an optional :split), or an entry of a data set list (dataset_info.json:NAME).

    report(done_bytes, total_bytes) is called during reading, from the calling thread or another.
    encoding: of text files. Raises DataError where the source is missing, empty, not JSON, of unknown columns, or
    without a usable row.
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
            draft = store.new_folder()
            try:
                _read_into(draft, reader, report or (lambda done, total: None))
                folder = store.publish(draft, reader.fingerprint)
            finally:
                if draft.exists():
                    shutil.rmtree(draft)
        elif report:
            report(reader.total, reader.total)
    return store.load(str(source), folder)


@contextmanager
def open_source(
    source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, encoding: str = "auto"
) -> Iterator[tuple[Preview, Iterator[Block]]]:
    """(preview, blocks of raw rows) of a source; rows have the same numbers as in `read`. Raises DataError."""
    source, mapping = resolve_entry(str(source), mapping)
    with Files(locate(source)) as files:
        reader = SourceReader(files, format, mapping, encoding)
        first = _preview(reader)
        yield first, reader.blocks() if first.thread is None else group_turns(reader.blocks(), first.thread)


def locate(source: str | Path) -> Path:
    """The file, folder or pattern a source names; a Hub data set is fetched first."""
    text = str(source)
    if text == "sample" or text.startswith("sample:"):
        return sample_path(text)
    path = Path(text).expanduser()
    is_pattern = glob.has_magic(text) and ("/" in text or "." in text) and not is_hub_id(text)
    if path.is_dir() or path.is_file() or is_pattern:
        return path
    if is_hub_id(text):
        return path_of(text)
    raise DataError(
        f"There is no file {text!r}.",
        "Check the path; a Hub data set is written owner/name, with :split if need be.",
        "data.train",
    )


class SourceReader:
    """The files of a source, each with its container, and their common fingerprint."""

    def __init__(self, files: Files, format: str, mapping: dict[str, Any] | None, encoding: str):
        self.files, self.format, self.mapping = files, format, mapping
        self.containers = [container_of(path, encoding) for path in files.paths]
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
        """In short: jsonl.gz, parquet.zip."""
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


def _read_into(folder: Path, reader: SourceReader, report: Report) -> None:
    with reader.parallel_readers() as readers:
        first = _preview(reader)
        if readers.processes and first.thread is None:
            shards = readers.read(first.detection.format, first.mapping, folder, report)
        else:
            found = reader.blocks() if first.thread is None else group_turns(reader.blocks(), first.thread)
            shard = read_blocks(
                found,
                first.detection.format,
                first.mapping,
                folder / "part-0.arrow",
                lambda done: report(min(done, reader.total), reader.total),
            )
            shards = [shard]
    _merge_shards(reader, first, shards, folder)


def _preview(reader: SourceReader) -> Preview:
    first = next(reader.blocks(), None)
    if first is None or not first.rows:
        raise _no_rows_error(reader.name, 0, [])
    if len(first.bad) == len(first.rows):
        kind, value, reason = first.bad[0]
        raise _no_rows_error(
            reader.name,
            len(first.rows),
            [problem(kind, 1, first.lines[0] if first.lines else None, None, value, reason)],
        )
    rows, mapping = first.rows, reader.mapping
    columns = columns_of(list(map(as_row, rows[:SAMPLE_ROWS])))
    check_columns(mapping, columns, reader.name)
    mapping = with_label_column(mapping, rows[:SAMPLE_ROWS])
    chosen = format_of(mapping) if reader.format == "auto" else reader.format
    if chosen:
        return Preview(
            Detection(chosen, "Chosen by hand."), columns, _unused_columns(rows, chosen, mapping), mapping, None
        )
    if thread := detect_thread(rows, reader.name):
        rows = next(group_turns([first], thread)).rows
        used = {getattr(thread, name) for name in ("role", "content", "conversation", "position", "member", "parent")}
        return Preview(detect(rows, reader.name), columns, [c for c in columns if c not in used], None, thread)
    try:
        detection = detect(rows, reader.name)
    except DataError:
        mapping_guess = match_ignoring_case(columns) if not normalized_mapping(mapping) else None
        if mapping_guess is None:
            raise
        named = ", ".join(f"{column} as {part}" for part, column in mapping_guess.items())
        reason = f"The columns were taken without regard to case: {named}."
        detection = Detection(format_of(mapping_guess) or "alpaca", reason)
        mapping = mapping_guess
    return Preview(
        detection, columns, _unused_columns(rows, detection.format, mapping), mapping, None, rows[:SAMPLE_ROWS]
    )


def _unused_columns(rows: list[Any], format: str, mapping: dict[str, Any] | None) -> list[str]:
    """The non-empty columns that the conversion of no usable row reads."""
    convert = Converter(formats()[format], mapping)
    accessed: set[str] = set()
    present: dict[str, None] = {}
    for row in map(as_row, rows[:SAMPLE_ROWS]):
        if isinstance(row, dict) and convert(TrackedRow(row, accessed), lambda *_: None) is not None:
            present |= dict.fromkeys(names_of(row))
    unused = [name for name in present if name not in accessed]
    return [name for name in unused if "[]." not in name or name.partition("[].")[0] in accessed]


def columns(source: str | Path, encoding: str = "auto") -> list[str]:
    """The columns of a file's first rows, to be named by hand. Raises DataError where it has no rows."""
    with Files(locate(source)) as files:
        first = next(SourceReader(files, "auto", None, encoding).blocks(), None)
    return columns_of(list(map(as_row, first.rows[:SAMPLE_ROWS]))) if first else []


def _merge_shards(reader: SourceReader, first: Preview, shards: list[Shard], folder: Path) -> None:
    """Join the shards, find duplicates over all of them, and write the data set."""
    problems: list[Problem] = []
    rows: dict[str, list[np.ndarray]] = {}
    files: list[tuple[str, int, int]] = []
    first_row = first_line = 0
    for n, shard in enumerate(shards):
        name = f"data-{n:05}-of-{len(shards):05}.arrow"
        (folder / shard.file).rename(folder / name)
        files.append((name, first_row, first_line))
        problems += [_offset_problem(p, first_row, first_line) for p in shard.problems]
        for kind, numbers in shard.by_kind.items():
            rows.setdefault(kind, []).append(np.frombuffer(numbers, np.int64) + first_row)
        first_row, first_line = first_row + shard.rows, first_line + shard.lines
    by_kind = {kind: np.unique(np.concatenate(parts)) for kind, parts in rows.items()}
    usable = sum(shard.usable for shard in shards)
    if not usable:
        hint = ""
        if problems:
            hint = suggest_mapping(first.rows, problems[0].kind, problems[0].field or "", first.detection.format)
        raise _no_rows_error(reader.name, first_row, problems, hint)
    for kind in STYLE_KINDS:
        if len(by_kind.get(kind, ())) > max(STYLE_SHARE * usable, 3):
            by_kind.pop(kind)
            problems = [p for p in problems if p.kind != kind]
    hashes = {key: np.concatenate([getattr(shard, key) for shard in shards]) for key in ("exact", "endings")}
    notes = [*reader.files.notes, *(note for shard in shards for note in shard.notes)]
    notes += notes_of(reader.mapping, reader.files.paths)
    encoding = reader.containers[0].encoding
    metadata = {
        "format": first.detection.format,
        "container": reader.container,
        "rows": first_row,
        "fingerprint": reader.fingerprint,
        "columns": first.columns,
        "reason": first.detection.reason,
        "unsure": first.detection.unsure,
        "files": files,
        "kept": usable,
        "unused": first.unused,
        "notes": list(dict.fromkeys(notes)),
        "encoding": encoding,
    }
    if not encoding.startswith("utf-"):
        reason = f"The file is not written in UTF-8: it was read as {encoding}."
        problems.append(problem("legacy_encoding", 1, 1, None, encoding, reason))
        by_kind["legacy_encoding"] = np.array([1])
    repeat_problems, repeat_rows = _repeats(store.Parts(folder, files), hashes["exact"], hashes["endings"])
    problems = sorted([*problems, *repeat_problems], key=lambda p: (p.row, list(KINDS).index(p.kind)))
    store.write(folder, metadata, problems, by_kind | repeat_rows, hashes)


def _offset_problem(p: Problem, rows: int, lines: int) -> Problem:
    """The problem of a shard, with row and line counted from the beginning of the file."""
    if not rows:
        return p
    line = None if p.line is None else p.line + lines
    reason = p.reason.replace(f"Line {p.line} ", f"Line {line} ") if p.line else p.reason
    return Problem(p.row + rows, line, p.field, p.kind, p.severity, p.value, reason, p.hint)


def _repeats(parts: store.Parts, exact: np.ndarray, endings: np.ndarray) -> tuple[list[Problem], dict[str, np.ndarray]]:
    """(problems, rows by kind) of exact duplicates and of near duplicates over the whole data set."""
    conversations, problems, rows = Conversations(parts.table), [], {}
    numbers, duplicates = conversations.row_numbers, list(repeated(exact))
    exact_duplicates = {index for index, _ in duplicates}
    near = [pair for pair in _near(conversations, exact, endings, parts.forget) if pair[0] not in exact_duplicates]
    for kind, pairs, words in (
        ("duplicate", duplicates, "The same stands in row {}."),
        ("near_duplicate", near, NEAR_DUPLICATE_REASON),
    ):
        if pairs:
            rows[kind] = numbers[[index for index, _ in pairs]]
        for index, earlier in pairs[:MAX_DETAILED_PER_KIND]:
            conversation = conversations[index]
            value = conversation.get("text") or conversation["messages"][0]["content"]
            problems.append(
                problem(kind, conversation["row"], conversation["line"], None, value, words.format(numbers[earlier]))
            )
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


def _no_rows_error(name: str, rows: int, problems: list[Problem], hint: str = "") -> DataError:
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
