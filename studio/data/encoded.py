"""Encoded rows on disk: what the trainer reads, memory-mapped, so that a million rows cost no memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from studio.data.arrow_buffers import offsets
from studio.tokens import Encoded

SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
SCHEMAS = {  # by what the stage learns from; second, good, question: as in tokens.Encoded
    "answers": SCHEMA,
    "pairs": SCHEMA.append(pa.field("second", pa.int32())),
    "verdicts": SCHEMA.append(pa.field("good", pa.bool_())),
    "prompts": SCHEMA.append(pa.field("question", pa.string())),
}
Row = dict[str, Any]


class EncodedRows(Sequence[Row]):
    """A sequence of {"input_ids", "labels"}, of pairs with "second", of verdicts with "good", of prompts with
    "question" (see tokens.Encoded).

    A slice gives a list. order: which rows of the table, and how often.
    """

    def __init__(self, table: pa.Table, order: np.ndarray | None = None):
        self.table, self.order = table, order

    def __len__(self) -> int:
        return self.table.num_rows if self.order is None else len(self.order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        row = index if self.order is None else int(self.order[index])
        return {
            name: self.table.column(name)[row].values.to_numpy().tolist()
            if name in SCHEMA.names
            else self.table.column(name)[row].as_py()
            for name in self.table.column_names
        }

    def first(self, count: int) -> list[Row]:
        """Some rows, soon."""
        return self[:count]

    def longest(self, count: int) -> list[Row]:
        """The rows with the most tokens, the longest first."""
        return [self[int(number)] for number in np.argsort(-self.lengths(), kind="stable")[:count]]

    def lengths(self) -> np.ndarray:
        """Tokens of every row."""
        sizes = [np.diff(chunk.offsets.to_numpy()) for chunk in self.table.column("input_ids").chunks]
        lengths = np.concatenate(sizes) if sizes else np.empty(0, np.int64)
        return lengths.astype(np.int64) if self.order is None else lengths[self.order].astype(np.int64)

    def ids(self) -> set[int]:
        """The token ids that stand in the rows."""
        chunks = self.table.column("input_ids").chunks
        return set().union(*(np.unique(chunk.flatten().to_numpy()).tolist() for chunk in chunks))

    @cached_property
    def content(self) -> str:
        """A 128-bit hash of ids, labels and order: equal for equal rows, whatever version of the program made them."""
        bits = xxhash.xxh3_128(np.ascontiguousarray(self.lengths()).tobytes())
        for name in self.table.column_names:
            for chunk in self.table.column(name).chunks:
                if pa.types.is_string(chunk.type):
                    bits.update("\0".join(chunk.to_pylist()).encode(errors="replace"))
                    continue
                values = chunk.flatten() if name in SCHEMA.names else chunk
                bits.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)))
        bits.update(b"" if self.order is None else np.ascontiguousarray(self.order, np.int64))
        return bits.hexdigest()


class Writer:
    """Writes encoded rows to an Arrow stream, a batch at a time. Use with `with`. examples: a key of SCHEMAS."""

    def __init__(self, path: Path, examples: str = "answers"):
        self.sink = pa.OSFile(str(path), "wb")
        self.schema = SCHEMAS[examples]
        self.stream = pa.ipc.new_stream(self.sink, self.schema)
        self.rows = 0
        self.trained: list[int] = []  # trained tokens of each row

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.sink.close()

    def add(self, batch: list[Encoded]) -> None:
        if batch:
            more = [
                pa.array([getattr(e, f.name) for e in batch], f.type) for f in self.schema if f.name not in SCHEMA.names
            ]
            columns = [_lists([e.ids for e in batch]), _lists([e.labels for e in batch]), *more]
            self.stream.write_batch(pa.record_batch(columns, schema=self.schema))
            self.rows += len(batch)
            self.trained += [e.n_trained for e in batch]


def _lists(rows: list[list[int]]) -> pa.ListArray:
    ends = np.cumsum([len(row) for row in rows])
    values = np.array([number for row in rows for number in row], np.int32)
    child = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
    return pa.ListArray.from_buffers(pa.list_(pa.int32()), len(rows), [None, offsets(ends)], children=[child])


def open_rows(path: Path, order: np.ndarray | None = None) -> EncodedRows:
    """The rows a Writer wrote."""
    return EncodedRows(pa.ipc.open_stream(pa.memory_map(str(path))).read_all(), order)
