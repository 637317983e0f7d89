"""A large data set is encoded in the order in which it is trained on, part by part, beside its trainer.

The first training step waits only for the first part. The rows of an epoch and their order are fixed before any row is
encoded, so they are the same whether the rows are streamed or already on disk. A row that cannot be trained on keeps
its position and is empty.

    part-00000.arrow …   encoded rows, in the order of the first epoch
    eval.arrow           the rows held out
    order.npy            the row at each position of an epoch
    record.json          as for small sets; written last, when the folder gets its name
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from studio import credentials
from studio.data import encoding, store
from studio.data.encoded import EncodedRows, Row, Writer, open_rows
from studio.data.encoding import EncodingJob, Prepared
from studio.data.order import DataOrder
from studio.data.record import describe_dropped
from studio.data.splitting import sample_indices, shuffled
from studio.errors import DataError
from studio.events import is_locked
from studio.home import PROJECT
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoded, Encoder

LARGE = int(os.environ.get("STUDIO_LARGE", 20_000))  # rows from which on
PART = int(os.environ.get("STUDIO_PART", 2_000))  # rows written at a time
POLL_SECONDS = 0.05  # seconds between two looks for a part
EMPTY_ROW = Encoded([], [], "", [], 0, 0)


class EpochOrder:
    """Maps the positions of an epoch to encoded rows.

    A candidate is the number of a row over all sources; first: the first candidate of each source.
    chosen: [position] -> candidate. encoded: the candidates in the order in which they are encoded.
    of: [position] -> row of the concatenated parts.
    """

    def __init__(self, order: DataOrder, counts: Sequence[int], seed: int):
        self.first = np.concatenate(([0], np.cumsum(counts)))
        parts = [
            sample_indices(count, source.weight, seed + n) + self.first[n]
            for n, (source, count) in enumerate(zip(order.sources(), counts, strict=True))
        ]
        self.chosen = np.concatenate(parts)
        visited = self.chosen[shuffled(len(self.chosen), seed, 0)]
        _, first_visits = np.unique(visited, return_index=True)
        self.encoded = visited[np.sort(first_visits)]  # each candidate once, in the order of the first epoch
        row_of_candidate = np.empty(self.first[-1], np.int64)
        row_of_candidate[self.encoded] = np.arange(len(self.encoded))
        self.of = row_of_candidate[self.chosen]

    @property
    def parts(self) -> int:
        return -(-len(self.encoded) // PART)


class StreamedRows(Sequence[Row]):
    """The rows of an epoch while they are still being encoded. Access to a row waits until its part is written."""

    def __init__(self, epoch_order: EpochOrder, draft: Path, final: Path, running: Callable[[], None], bound: int):
        """running: called while waiting, raises StudioError once the encoder is gone. bound: most tokens of a row."""
        self.epoch_order, self.bound = epoch_order, bound
        self.draft, self.final, self.running = draft, final, running
        self.tables: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return len(self.epoch_order.of)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        part, row = divmod(int(self.epoch_order.of[index]), PART)
        return EncodedRows(self.part(part))[row]

    def part(self, number: int) -> pa.Table:
        if number not in self.tables:
            self.tables[number] = open_rows(self._wait_for(f"part-{number:05}.arrow")).table
        return self.tables[number]

    def held_out(self) -> EncodedRows:
        return open_rows(self._wait_for("eval.arrow"))

    def first(self, count: int) -> list[Row]:
        """The first usable rows in training order, from the first part alone."""
        return [row for row in EncodedRows(self.part(0)) if row["input_ids"]][:count]

    def longest(self, count: int) -> list[Row]:
        """The first rows, each repeated up to the largest number of tokens: the worst case for memory."""
        return [
            {name: (list(row[name]) * -(-self.bound // len(row[name])))[: self.bound] for name in row}
            for row in self.first(count)
        ]

    def finished(self) -> dict[str, Any] | None:
        """The record, once every row is encoded; None before."""
        file = self.final / "record.json"
        return json.loads(file.read_text(encoding="utf-8"))["record"] if file.is_file() else None

    @cached_property
    def content(self) -> str:
        """The content hash of all rows, as EncodedRows.content; waits for the last part."""
        while self.finished() is None:
            self.running()
            time.sleep(POLL_SECONDS)
        return parts(self.final, self.epoch_order.of).content

    def _wait_for(self, name: str) -> Path:
        while True:
            for folder in (self.draft, self.final):
                if (folder / name).is_file():
                    return folder / name
            self.running()
            time.sleep(POLL_SECONDS)


def start_streaming(
    order: DataOrder, encoder: Encoder, seed: int, key: str, counts: Sequence[int], available: int = 0
) -> Prepared:
    """Encode in a child process; returns once the first part is written. Raises DataError where the child failed."""
    draft, final = store.folder_of(f".ahead-{key}"), store.folder_of(f"encoded-{key}")
    job = {
        "order": order.model_dump(mode="json"),
        "model": str(encoder.folder),
        "seed": seed,
        "key": key,
        "parent": os.getpid(),
        "context": encoder.context_limit,
    }
    environment = {**credentials.child_environment(*credentials.HUB), "TOKENIZERS_PARALLELISM": "true"}
    child = subprocess.Popen(
        [sys.executable, "-m", "studio.data.preparing"], cwd=PROJECT, env=environment, stdin=subprocess.PIPE, text=True
    )
    child.stdin.write(json.dumps(job))
    child.stdin.close()

    def running() -> None:
        if child.poll() is None or (child.returncode == 0 and is_locked(draft.with_suffix(".lock"))):
            return
        failure = draft.with_suffix(".failed")
        if failure.is_file():
            raise DataError(**json.loads(failure.read_text()))
        if not (final / "record.json").is_file():
            raise DataError("The encoding of the data ended without a word.", "Start the run again.", "data.train")

    rows = StreamedRows(EpochOrder(order, counts, seed), draft, final, running, encoder.max_length or 0)
    eval_rows = rows.held_out()
    sizes = EncodedRows(rows.part(0)).lengths()
    trained = sum(len(row["labels"]) - row["labels"].count(IGNORE_INDEX) for row in rows.first(PART))
    share = len(rows) / max(1, len(sizes))
    statistics = {
        "rows": len(rows),
        "eval_rows": len(eval_rows),
        "tokens": int(sizes.sum() * share),
        "trained": int(trained * share),
        "max": rows.bound,
    }
    record = {
        "sources": [
            {"source": source.source, "weight": source.weight, "rows": count}
            for source, count in zip(order.sources(), counts, strict=True)
        ],
        "dropped": {},
        "cut": {},
        "tokens_lost": 0,
        "eval": {"rows": len(eval_rows), "of": available},
        "ahead": rows.epoch_order.parts,
    }
    return Prepared(rows, eval_rows, record, statistics, key)


def encode(job: EncodingJob) -> None:
    """Write a large set part by part, and its record at the end."""
    folder, counts = job.folder, [len(part.train) for part in job.splits]
    epoch_order = EpochOrder(job.order, counts, job.seed)
    eval_rows = encoding.write_eval(job, folder / ".eval")
    os.replace(folder / ".eval", folder / "eval.arrow")
    trained: list[int] = []
    for number in range(epoch_order.parts):
        chunk = epoch_order.encoded[number * PART : (number + 1) * PART]
        with Writer(folder / ".part", job.order.examples) as writer:
            writer.add(_encoded(chunk, epoch_order.first, job))
        os.replace(folder / ".part", folder / f"part-{number:05}.arrow")
        trained += writer.trained
        job.report(min((number + 1) * PART, len(epoch_order.encoded)), len(epoch_order.encoded))
    rows = parts(folder, epoch_order.of)
    if not sum(trained):
        raise DataError("No row is left to train on.", describe_dropped(job.record), "data")
    np.save(folder / "order.npy", epoch_order.of)
    encoding.write_record(job, counts, rows, np.array(trained, np.int64)[epoch_order.of], eval_rows)


def _encoded(chunk: np.ndarray, first: np.ndarray, job: EncodingJob) -> list[Encoded]:
    """The candidates of a part, encoded; EMPTY_ROW for each one that cannot be trained on."""
    rows = [EMPTY_ROW] * len(chunk)
    for n, part in enumerate(job.splits):
        source_rows = np.flatnonzero((chunk >= first[n]) & (chunk < first[n + 1]))
        positions = iter(source_rows.tolist())
        rows_of_part = part.train.take((chunk[source_rows] - first[n]).tolist())
        for batch, encoded in encoding.batches(rows_of_part, job.encoder, job.order.examples):
            for conversation, encoded_row in zip(batch, encoded, strict=True):
                rows[next(positions)] = (
                    encoding.accept_row(conversation, encoded_row, job.encoder, part.dataset.source, job.record)
                    or EMPTY_ROW
                )
    return rows


def parts(folder: Path, order: np.ndarray) -> EncodedRows:
    """The parts of a finished set as one sequence."""
    return EncodedRows(pa.concat_tables([open_rows(file).table for file in sorted(folder.glob("part-*.arrow"))]), order)
