"""Reads, checks and writes one part of a file as Arrow. A large file is read by several processes, one a part:

    python -c "from studio.data.shard import main; main()" < job.json

which prints one JSON line {"done": bytes} a block and leaves its result at job["out"] + ".pickle".
"""

from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from studio.data.block import Block
from studio.data.blocks import expand_blocks
from studio.data.chunk import SCHEMA, ProblemCollector, convert_block
from studio.data.converter import Converter
from studio.data.formats import formats
from studio.data.json_lines import json_lines
from studio.data.problem import Problem
from studio.errors import DataError, is_disk_full


@dataclass
class Shard:
    """What came of a part. Row and line numbers count from 1 within the part. kept: usable rows."""

    file: str
    rows: int = 0
    lines: int = 0
    usable: int = 0
    problems: list[Problem] = field(default_factory=list)
    by_kind: dict[str, array[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    exact: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    endings: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))


def read_blocks(
    source: Iterator[Block], format: str, mapping: dict[str, Any] | None, out: Path, report: Callable[[int], None]
) -> Shard:
    """Digest all blocks into the Arrow stream file `out`. report(bytes done) after each."""
    shard, collector, convert = Shard(out.name), ProblemCollector(), Converter(formats()[format], mapping)
    exact, endings = [], []
    with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for block in source:
            chunk = convert_block(block, shard.rows + 1, convert, collector)
            if chunk.table.num_rows:
                writer.write_table(chunk.table)
            shard.rows += len(block.rows)
            shard.usable += chunk.table.num_rows
            exact.append(chunk.exact)
            endings.append(chunk.endings)
            shard.lines = block.last or shard.lines
            shard.notes += block.notes
            report(block.done)
    shard.problems, shard.by_kind = collector.problems, collector.rows
    if exact:
        shard.exact, shard.endings = np.concatenate(exact), np.concatenate(endings)
    return shard


def part_of_lines(path: Path, start: int, stop: int) -> tuple[Iterator[Block], int]:
    """The lines that begin in bytes [start, stop) of a JSON Lines file."""
    file = open(path, "rb", buffering=1 << 20)  # noqa: SIM115, read until the process ends
    if start:
        file.seek(start - 1)
        file.readline()  # the part before this one finishes the line it began
    begin = file.tell()
    if begin >= stop:
        return iter(()), 0
    return expand_blocks(json_lines(file, path.name, limit=stop - begin)), stop - begin


def main() -> None:
    """Read the part that the job on standard input names; without a job, do nothing."""
    gc.disable()  # nothing here makes cycles, and looking for them costs a tenth
    text = sys.stdin.read()
    if not text:
        return
    job = json.loads(text)
    source, _ = part_of_lines(Path(job["path"]), job["start"], job["stop"])

    def report(done: int) -> None:
        try:
            os.write(1, b'{"done": %d}\n' % done)
        except BrokenPipeError:
            sys.exit(1)

    try:
        try:
            result: Any = read_blocks(source, job["format"], job["mapping"], Path(job["out"]), report)
        except DataError as error:
            result = error
        with open(job["out"] + ".pickle", "wb") as file:
            pickle.dump(result, file)
    except OSError as error:
        if is_disk_full(error):
            sys.exit(errno.ENOSPC)
        raise
