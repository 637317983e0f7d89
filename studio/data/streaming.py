"""A large data set is encoded in the order in which it is trained on, part by part, beside its trainer.

The first step waits for the first part alone. Which rows an epoch sees, and in which order, is settled before any of them is encoded, so
it is the same whether the rows were waited for or found on disk: a row that cannot be trained on keeps its place, and is empty.

    part-00000.arrow …   encoded rows, in the order in which the first epoch meets them
    eval.arrow           the rows held out
    order.npy            which of the rows stands at each place of an epoch
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

from studio.data import encoding, store
from studio.data.encoded import EncodedRows, Row, Writer, open_rows
from studio.data.encoding import EncodingJob, Prepared
from studio.data.mixing import sample_indices, shuffled
from studio.data.order import DataOrder
from studio.errors import DataError
from studio.events import is_locked
from studio.home import PROJECT
from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoded, Encoder

LARGE = int(os.environ.get("STUDIO_LARGE", 20_000))  # rows from which on
PART = int(os.environ.get("STUDIO_PART", 2_000))  # rows written at a time
LOOK = 0.05  # seconds between two looks for a part
NOTHING = Encoded([], [], "", [], 0, 0)


class EpochOrder:
    """Where each row of an epoch is found. chosen: [places of an epoch] -> candidate; of: [places] -> row of the parts put together."""

    def __init__(self, order: DataOrder, counts: Sequence[int], seed: int):
        self.first = np.concatenate(([0], np.cumsum(counts)))
        parts = [
            sample_indices(count, source.weight, seed + n) + self.first[n]
            for n, (source, count) in enumerate(zip(order.sources(), counts, strict=True))
        ]
        self.chosen = np.concatenate(parts)
        met = self.chosen[shuffled(len(self.chosen), seed, 0)]
        _, where = np.unique(met, return_index=True)
        self.encoded = met[np.sort(where)]  # candidates, each once, as the first epoch meets them
        place = np.empty(self.first[-1], np.int64)
        place[self.encoded] = np.arange(len(self.encoded))
        self.of = place[self.chosen]

    @property
    def parts(self) -> int:
        return -(-len(self.encoded) // PART)


class StreamedRows(Sequence[Row]):
    """The rows of an epoch while they are still being encoded: whoever asks for one waits for its part."""

    def __init__(self, places: EpochOrder, draft: Path, final: Path, running: Callable[[], None], bound: int):
        """running: called while waiting; raises StudioError when nothing is to be waited for any more. bound: tokens that no row exceeds."""
        self.places, self.draft, self.final, self.running, self.bound = places, draft, final, running, bound
        self.tables: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return len(self.places.of)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        part, place = divmod(int(self.places.of[index]), PART)
        return EncodedRows(self.part(part))[place]

    def part(self, number: int) -> pa.Table:
        if number not in self.tables:
            self.tables[number] = open_rows(self._found(f"part-{number:05}.arrow")).table
        return self.tables[number]

    def held_out(self) -> EncodedRows:
        return open_rows(self._found("eval.arrow"))

    def first(self, count: int) -> list[Row]:
        """Usable rows that are there soon, in the order of training."""
        return [row for row in EncodedRows(self.part(0)) if row["input_ids"]][:count]

    def longest(self, count: int) -> list[Row]:
        """What the longest rows may be: the first ones, told over up to the longest that is allowed."""
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
        """As EncodedRows has it: of all rows, so it waits for the last one. Asked for when the first checkpoint is written."""
        while self.finished() is None:
            self.running()
            time.sleep(LOOK)
        return parts(self.final, self.places.of).content

    def _found(self, name: str) -> Path:
        while True:
            for folder in (self.draft, self.final):
                if (folder / name).is_file():
                    return folder / name
            self.running()
            time.sleep(LOOK)


def start_streaming(
    order: DataOrder, encoder: Encoder, seed: int, key: str, counts: Sequence[int], available: int = 0
) -> Prepared:
    """Start the encoding beside this process and give what can be told after its first part. Raises what it raised.

    available: rows that could have been held out.
    """
    draft, final = store.folder_of(f".ahead-{key}"), store.folder_of(f"encoded-{key}")
    job = {
        "order": order.model_dump(mode="json"),
        "model": str(encoder.folder),
        "seed": seed,
        "key": key,
        "parent": os.getpid(),
        "context": encoder.context_limit,
    }
    settled = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
    child = subprocess.Popen(
        [sys.executable, "-m", "studio.data.preparing"], cwd=PROJECT, env=settled, stdin=subprocess.PIPE, text=True
    )
    child.stdin.write(json.dumps(job))
    child.stdin.close()

    def running() -> None:
        if child.poll() is None or (child.returncode == 0 and is_locked(draft.with_suffix(".lock"))):
            return
        told = draft.with_suffix(".failed")
        if told.is_file():
            raise DataError(**json.loads(told.read_text()))
        if not (final / "record.json").is_file():
            raise DataError("The encoding of the data ended without a word.", "Start the run again.", "data.train")

    rows = StreamedRows(EpochOrder(order, counts, seed), draft, final, running, encoder.max_length or 0)
    held = rows.held_out()
    sizes = EncodedRows(rows.part(0)).lengths()
    trained = sum(len(row["labels"]) - row["labels"].count(IGNORE_INDEX) for row in rows.first(PART))
    share = len(rows) / max(1, len(sizes))
    statistics = {
        "rows": len(rows),
        "eval_rows": len(held),
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
        "eval": {"rows": len(held), "of": available},
        "ahead": rows.places.parts,
    }
    return Prepared(rows, held, record, statistics, key, encoder.template.stop_strings)


def encode(work: EncodingJob) -> None:
    """Write a large set part by part, and its record at the end."""
    folder, counts = work.folder, [len(part.train) for part in work.drawn]
    places = EpochOrder(work.order, counts, work.seed)
    eval_rows = encoding.write_eval(work, folder / ".eval")
    os.replace(folder / ".eval", folder / "eval.arrow")
    trained: list[int] = []
    for number in range(places.parts):
        chunk = places.encoded[number * PART : (number + 1) * PART]
        with Writer(folder / ".part") as writer:
            writer.add(_encoded(chunk, places.first, work))
        os.replace(folder / ".part", folder / f"part-{number:05}.arrow")
        trained += writer.trained
        work.report(min((number + 1) * PART, len(places.encoded)), len(places.encoded))
    rows = parts(folder, places.of)
    if not sum(trained):
        raise DataError("No row is left to train on.", encoding.why(work.record), "data")
    np.save(folder / "order.npy", places.of)
    encoding.write_record(work, counts, rows, np.array(trained, np.int64)[places.of], eval_rows)


def _encoded(chunk: np.ndarray, first: np.ndarray, work: EncodingJob) -> list[Encoded]:
    """Candidates (numbers over all sources), encoded; nothing in the place of one that cannot be trained on."""
    found = [NOTHING] * len(chunk)
    for n, part in enumerate(work.drawn):
        mine = np.flatnonzero((chunk >= first[n]) & (chunk < first[n + 1]))
        place = iter(mine.tolist())
        for batch, encoded in encoding.batches(part.train.take((chunk[mine] - first[n]).tolist()), work.encoder):
            for conversation, one in zip(batch, encoded, strict=True):
                found[next(place)] = (
                    encoding.accept_row(conversation, one, work.encoder, part.dataset.source, work.record) or NOTHING
                )
    return found


def parts(folder: Path, order: np.ndarray) -> EncodedRows:
    """All parts of a finished set as one."""
    return EncodedRows(pa.concat_tables([open_rows(file).table for file in sorted(folder.glob("part-*.arrow"))]), order)
