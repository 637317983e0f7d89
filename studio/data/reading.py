"""read: any source in, a Dataset out. Checked once; asked for again, it is opened from where it is kept."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from studio.data import store
from studio.data.blocks import blocks
from studio.data.containers import Container, container_of
from studio.data.dataset import Conversations, Dataset
from studio.data.detect import Detection, columns_of, detect
from studio.data.formats import formats
from studio.data.hub import is_hub_id, path_of
from studio.data.mapping import check_columns, format_of, normal
from studio.data.problem import KEPT_PER_KIND, KINDS, Problem, problem
from studio.data.repeats import near, repeated
from studio.data.sample import sample_path
from studio.data.shard import Shard, read_blocks
from studio.errors import DataError
from studio.home import PROJECT

Report = Callable[[int, int], None]
VERSION = 1  # of what is stored; raise it when a check or a format changes
LARGE = 48 << 20  # bytes from which a file is read in parts, each in a process of its own
STYLE = 0.3  # a share of answers without an end from which that is their style and no fault


def read(source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, report: Report | None = None) -> Dataset:
    """Read and check a file, `sample:NAME` or a Hub data set (id, with an optional :split).

    report(done_bytes, total_bytes) is called as it goes, from the calling thread or another.
    Raises DataError for what is hopeless: no such file, nothing in it, not JSON, no known columns, no usable row.
    """
    path = locate(source)
    if format != "auto" and format not in formats():
        raise DataError(f"There is no format named {format!r}.", f"The formats are: auto, {', '.join(formats())}.", "data.format")
    normal(mapping)
    fingerprint = _fingerprint(path, format, mapping)
    folder = store.folder_of(fingerprint)
    if not (folder / "studio.json").is_file():
        made = store.draft()
        try:
            _import(path, format, mapping, fingerprint, made, report or (lambda done, total: None))
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


def _import(path: Path, format: str, mapping: dict[str, Any] | None, fingerprint: str, folder: Path, report: Report) -> None:
    """Read all rows into the folder."""
    container, total = container_of(path), path.stat().st_size
    first = next(iter(blocks(path, container)), None)
    if first is None:
        raise _nothing(path.name, 0, [])
    columns = columns_of(first.rows[:200])
    check_columns(mapping, columns, path.name)
    chosen = format_of(mapping) if format == "auto" else None
    found = detect(first.rows, path.name) if format == "auto" and chosen is None else Detection(chosen or format, "Chosen by hand.")
    if container.name == "jsonl" and not container.gz and container.encoding == "utf-8" and total > LARGE:
        shards = _in_parts(path, found.format, mapping, folder, report)
    else:
        done = lambda n: report(min(n, total), total)  # noqa: E731
        shards = [read_blocks(blocks(path, container), found.format, mapping, folder / "part-0.arrow", done)]
    _gather(path, container, found, columns, shards, fingerprint, folder)


def _in_parts(path: Path, format: str, mapping: dict[str, Any] | None, folder: Path, report: Report) -> list[Shard]:
    """Read a large file with as many processes as there are processors (at most 8)."""
    total, count = path.stat().st_size, max(1, min(8, os.cpu_count() or 1))
    edges = [total * k // count for k in range(count + 1)]
    done, shards, threads = [0] * count, [None] * count, []

    def run(k: int) -> None:
        job = {"path": str(path), "start": edges[k], "stop": edges[k + 1], "format": format, "mapping": mapping, "out": str(folder / f"part-{k}.arrow")}
        command = [sys.executable, "-c", "from studio.data.shard import main; main()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            for line in process.stdout:
                done[k] = json.loads(line)["done"]
                report(min(sum(done), total), total)
        if process.returncode == 0:
            with open(job["out"] + ".pickle", "rb") as file:
                shards[k] = pickle.load(file)
            os.unlink(job["out"] + ".pickle")

    for k in range(count):
        threads.append(threading.Thread(target=run, args=(k,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    for shard in shards:
        if isinstance(shard, DataError):
            raise shard
        if shard is None:
            raise DataError(f"Reading {path.name} broke off.", "Is there memory and disk space left? Try again.", path.name)
    return shards


def _gather(path: Path, container: Container, found: Detection, columns: list[str], shards: list[Shard], fingerprint: str, folder: Path) -> None:
    """Join the parts, look for repeats over all of them, and write down what was found."""
    problems, rows, files, first_row, first_line = [], {}, [], 0, 0
    for n, shard in enumerate(shards):
        name = f"data-{n:05}-of-{len(shards):05}.arrow"
        os.rename(folder / shard.file, folder / name)
        files.append((name, first_row, first_line))
        problems += [_moved(p, first_row, first_line) for p in shard.problems]
        for kind, numbers in shard.by_kind.items():
            rows.setdefault(kind, []).append(np.frombuffer(numbers, np.int64) + first_row)
        first_row, first_line = first_row + shard.rows, first_line + shard.lines
    by_kind = {kind: np.unique(np.concatenate(parts)) for kind, parts in rows.items()}
    kept = sum(shard.kept for shard in shards)
    if not kept:
        raise _nothing(path.name, first_row, problems)
    if len(by_kind.get("unfinished", ())) > max(STYLE * kept, 3):
        by_kind.pop("unfinished")
        problems = [p for p in problems if p.kind != "unfinished"]
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

    again = set()
    for index, earlier in repeated(exact):
        again.add(index)
        note("duplicate", index, earlier, "The same stands in row {row}.")
    for index, earlier, share in near(table, exact, loose, parts.forget):
        if index not in again:
            note("near_duplicate", index, earlier, f"It shares {share:.0%} of its wording with row {{row}}.")
    return problems, {kind: np.array(found) for kind, found in rows.items()}


def _nothing(name: str, rows: int, problems: list[Problem]) -> DataError:
    if not problems:
        return DataError(f"{name} holds no rows.", "Choose a file that holds rows.", name)
    p = problems[0]
    where = f"row {p.row}" + (f", {p.field}" if p.field else "")
    return DataError(f"None of the {rows} rows of {name} can be trained on. The first, {where}: {p.reason} Found: {p.value}", p.hint, name)
