"""Arrow columns in which one value stands for many: dictionaries, runs and views. What they would hold written out.

A file of some KiB may name a long text a million times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

OFFSETS = {pa.string(): np.int32, pa.binary(): np.int32, pa.large_string(): np.int64, pa.large_binary(): np.int64}


def shares(kind: Any) -> bool:
    """Whether values of a type, at any depth, may be held once and named many times."""
    shared = (
        pa.types.is_dictionary,
        pa.types.is_run_end_encoded,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
        pa.types.is_string_view,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in shared) or any(shares(kind.field(n).type) for n in range(kind.num_fields))


def written_bytes(column: Any) -> int:
    """Bytes of a column's values, each counted as often as it is named; of nested ones in runs and views at most these.

    column: validated in full.
    """
    kind = column.type
    if not shares(kind):
        return int(column.nbytes)
    if pa.types.is_struct(kind):
        return sum(map(written_bytes, column.flatten()))
    if pa.types.is_dictionary(kind):
        return _named(column.dictionary, column.indices)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return int(_lengths(column).sum())
    if pa.types.is_run_end_encoded(kind):
        return len(column) * _longest(column.values)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return int(_sum(column.sizes)) * _longest(column.values)
    if pa.types.is_map(kind):
        start, stop = column.offsets[0].as_py(), column.offsets[-1].as_py()
        return sum(written_bytes(part.slice(start, stop - start)) for part in (column.keys, column.items))
    return written_bytes(column.flatten())  # lists


def _named(values: Any, indices: Any) -> int:
    """Bytes of values, each as often as an index names it."""
    import pyarrow.compute as pc  # late: some 50 ms

    if shares(values.type) or values.type.num_fields:
        return len(indices) * _longest(values)
    lengths = pa.array(_lengths(values))
    return _sum(pc.take(lengths, indices))


def _longest(values: Any) -> int:
    """Bytes of the longest value; of nested ones of all together."""
    if values.type.num_fields or not len(values):
        return written_bytes(values)
    return int(_lengths(values).max())


def _sum(numbers: Any) -> int:
    import pyarrow.compute as pc  # late, as above

    return int(pc.sum(pc.cast(numbers, pa.int64())).as_py() or 0)


def _lengths(values: Any) -> Any:
    """Bytes of each value of a flat column, as a numpy array of int64; of null some or none."""
    kind = values.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):  # a view is 16 bytes: the first four its length
        views = np.frombuffer(values.buffers()[1], np.int32)[::4]
        return views[values.offset : values.offset + len(values)].astype(np.int64)
    number = OFFSETS.get(kind)
    if number:
        offsets = np.frombuffer(values.buffers()[1] or b"", number)
        return np.diff(offsets[values.offset : values.offset + len(values) + 1]).astype(np.int64)
    return np.full(len(values), -(-int(getattr(kind, "bit_width", 8)) // 8), np.int64)
