"""Arrow arrays put together from numpy's buffers: pa.array() would import pandas, a quarter of a second per process."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def offsets(ends: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.concatenate(([0], ends)).astype(np.int32))


def strings(data: bytes, ends: np.ndarray, present: list[bool] | None = None) -> pa.StringArray:
    """The texts data[ends[i-1]:ends[i]]. present: false for those that are null."""
    valid = None if present is None else pa.py_buffer(np.packbits(np.array(present), bitorder="little").tobytes())
    return pa.StringArray.from_buffers(len(ends), offsets(ends), pa.py_buffer(data), valid)


def numbers(values: np.ndarray) -> pa.Int64Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values.astype(np.int64))])


def numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """The values (int64) of a column without nulls."""
    parts = [
        np.frombuffer(part.buffers()[1], np.int64, len(part), 8 * part.offset) for part in column.chunks if len(part)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
