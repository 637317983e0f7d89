"""read: any source in, a Dataset out. Checked once; asked for again, it is opened from where it is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from studio.data import store
from studio.data.blocks import blocks
from studio.data.containers import Container, container_of
from studio.data.dataset import Conversations, Dataset
from studio.data.detect import Detection, by_case, columns_of, detect
from studio.data.formats import as_row, formats
from studio.data.hub import is_hub_id, path_of
from studio.data.mapping import check_columns, entry_of, format_of, normal
from studio.data.parts import Readers
from studio.data.problem import KEPT_PER_KIND, KINDS, Problem, problem
from studio.data.repeats import near, repeated
from studio.data.sample import sample_path
from studio.data.shard import Shard, read_blocks
from studio.errors import DataError

Report = Callable[[int, int], None]
VERSION = 5  # of what is stored; raise it when a check or a format changes
STYLES = ("unfinished", "too_short")  # kinds that are no fault but the style of the answers, where a STYLE share of them has it
STYLE = 0.3


def read(source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, report: Report | None = None) -> Dataset:
    """Read and check a file, `sample:NAME`, a Hub data set (id, with an optional :split), or an entry of a dataset_info.json:NAME.

    report(done_bytes, total_bytes) is called as it goes, from the calling thread or another.
    Raises DataError for what is hopeless: no such file, nothing in it, not JSON, no known columns, no usable row.
    """
    source, mapping = entry_of(str(source), mapping)
    path = locate(source)
    if format != "auto" and format not in formats():
        raise DataError(f"There is no format named {format!r}.", f"The formats are: auto, {', '.join(formats())}.", "data.format")
    normal(mapping)
    container = container_of(path)
    with Readers(path, container) as readers:
        fingerprint = _fingerprint(path, format, mapping)
        folder = store.folder_of(fingerprint)
        if not (folder / "studio.json").is_file():
            made = store.draft()
            try:
                found, columns, taken = _first_look(path, container, format, mapping)
                shards = _shards(path, container, readers, found.format, taken, made, report or (lambda done, total: None))
                _gather(path, container, found, columns, shards, fingerprint, made)
                folder = store.keep(made, fingerprint)
            finally:
                if made.exists():
                    shutil.rmtree(made)
        elif report:
            report(path.stat().st_size, path.stat().st_size)
    return store.load(str(source), folder)


def locate(source: str | Path) -> Path:
    """The file a source names; a Hub data set is fetched first."""
    text = str(source)
    if text == "sample" or text.startswith("sample:"):
        return sample_path(text)
    path = Path(text).expanduser()
    if path.is_dir():
        raise DataError(f"{text!r} is a folder.", "Name the file inside it.", "data.train")
    if path.is_file():
        return path
    if is_hub_id(text):
        return path_of(text)
    raise DataError(f"There is no file {text!r}.", "Check the path; a Hub data set is written owner/name, with :split if need be.", "data.train")


def _fingerprint(path: Path, format: str, mapping: dict[str, Any] | None) -> str:
    """128 bits over the file's bytes and how they are read."""
    content = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            content.update(piece)
    content.update(json.dumps([VERSION, format, mapping], sort_keys=True).encode())
    return content.hexdigest()


def _first_look(path: Path, container: Container, format: str, mapping: dict[str, Any] | None) -> tuple[Detection, list[str], dict[str, Any] | None]:
    """The format and the columns, from the file's first rows; and the mapping, which is a guess where only the case of known names differs."""
    first = next(blocks(path, container), None)
    if first is None or not first.rows:
        raise _nothing(path.name, 0, [])
    if len(first.bad) == len(first.rows):
        kind, value, reason = first.bad[0]
        raise _nothing(path.name, len(first.rows), [problem(kind, 1, first.lines[0] if first.lines else None, None, value, reason)])
    columns = columns_of(list(map(as_row, first.rows[:200])))
    check_columns(mapping, columns, path.name)
    chosen = format_of(mapping) if format == "auto" else None
    if format != "auto" or chosen:
        return Detection(chosen or format, "Chosen by hand."), columns, mapping
    try:
        return detect(first.rows, path.name), columns, mapping
    except DataError:
        guess = by_case(columns) if mapping is None else None
        if guess is None:
            raise
        named = ", ".join(f"{column} as {part}" for part, column in guess.items())
        return Detection(format_of(guess) or "alpaca", f"The columns were taken without regard to case: {named}."), columns, guess


def columns(source: str | Path) -> list[str]:
    """The columns of a file's first rows, to be named by hand. Raises DataError where it has no rows."""
    path = locate(source)
    first = next(blocks(path, container_of(path)), None)
    return columns_of(list(map(as_row, first.rows[:200]))) if first else []


def _shards(path: Path, container: Container, readers: Readers, format: str, mapping: dict[str, Any] | None, folder: Path, report: Report) -> list[Shard]:
    """Read all rows into the folder."""
    if readers.processes:
        return readers.read(format, mapping, folder, report)
    total = path.stat().st_size
    return [read_blocks(blocks(path, container), format, mapping, folder / "part-0.arrow", lambda done: report(min(done, total), total))]


def _gather(path: Path, container: Container, found: Detection, columns: list[str], shards: list[Shard], fingerprint: str, folder: Path) -> None:
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
        raise _nothing(path.name, first_row, problems)
    for kind in STYLES:
        if len(by_kind.get(kind, ())) > max(STYLE * kept, 3):
            by_kind.pop(kind)
            problems = [p for p in problems if p.kind != kind]
    hashes = {key: np.concatenate([getattr(shard, key) for shard in shards]) for key in ("exact", "loose")}
    about = {
        "format": found.format, "container": container.name + (".gz" if container.gz else ""), "rows": first_row, "fingerprint": fingerprint,
        "columns": columns, "reason": found.reason, "unsure": found.unsure, "files": files, "kept": kept,
    }  # fmt: skip
    if container.encoding not in ("utf-8", "utf-16"):
        problems.append(problem("legacy_encoding", 1, 1, None, container.encoding))
        by_kind["legacy_encoding"] = np.array([1])
    more, more_rows = _repeats(store.Parts(folder, files), hashes["exact"], hashes["loose"])
    problems = sorted([*problems, *more], key=lambda p: (p.row, list(KINDS).index(p.kind)))
    store.write(folder, about, problems, by_kind | more_rows, hashes)


def _moved(p: Problem, rows: int, lines: int) -> Problem:
    if not rows:
        return p
    line = None if p.line is None else p.line + lines
    reason = p.reason.replace(f"Line {p.line} ", f"Line {line} ") if p.line else p.reason
    return Problem(p.row + rows, line, p.field, p.kind, p.severity, p.value, reason, p.hint)


def _repeats(parts: store.Parts, exact: np.ndarray, loose: np.ndarray) -> tuple[list[Problem], dict[str, np.ndarray]]:
    """Exact and near repeats over the whole data set."""
    problems, rows, table = [], {}, parts.table
    conversations = Conversations(table)

    def note(kind: str, index: int, earlier: int, words: str) -> None:
        number, line = (table.column(name)[index].as_py() for name in ("row", "line"))
        rows.setdefault(kind, []).append(number)
        if len(rows[kind]) <= KEPT_PER_KIND:
            said = conversations[index]
            value = said.get("text") or said["messages"][0]["content"]
            problems.append(problem(kind, number, line, None, value, words.format(row=table.column("row")[earlier].as_py())))

    with ThreadPoolExecutor(1) as pool:  # both sort a million numbers
        same, alike = pool.submit(lambda: list(repeated(exact))), list(near(table, exact, loose, parts.forget))
    again = set()
    for index, earlier in same.result():
        again.add(index)
        note("duplicate", index, earlier, "The same stands in row {row}.")
    for index, earlier, share in alike:
        if index not in again:
            note("near_duplicate", index, earlier, f"It shares {share:.0%} of its wording with row {{row}}.")
    return problems, {kind: np.array(found) for kind, found in rows.items()}


def _nothing(name: str, rows: int, problems: list[Problem]) -> DataError:
    if not problems:
        return DataError(f"{name} holds no rows.", "Choose a file that holds rows.", name)
    p = problems[0]
    where = f"row {p.row}" + (f", {p.field}" if p.field else "")
    hint = "Python printed these rows; write them with json.dumps." if p.value.startswith("{'") else p.hint
    return DataError(f"None of the {rows} rows of {name} can be trained on. The first, {where}: {p.reason} Found: {p.value}", hint, name)
