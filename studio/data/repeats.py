"""Rows that stand there twice: exactly, nearly, or in both the training and the evaluation data.

Exact: equal text of all turns. Nearly: for files of up to NEAR_ROWS rows, at least four fifths of their runs of three
words in common (MinHash, Broder 1997, with 64 hashes in 16 bands of 4, and then the true share). In larger files: the
same first and last 40 bytes of the row, and then the true share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa

from studio.data.triples import share, triples

NEAR_ROWS = 50_000
CANDIDATES = 3_000
ALIKE = 0.8  # Jaccard share of common word triples
TOGETHER = 50  # pairs
HASHES, BANDS = 64, 16


def repeated(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """(index, index of the first one like it) for every row whose hash stood there before."""
    in_order = np.sort(hashes)
    twice = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    if not len(twice):
        return
    place = np.minimum(np.searchsorted(twice, hashes), len(twice) - 1)
    indices = np.flatnonzero(twice[place] == hashes)
    _, first, inverse = np.unique(hashes[indices], return_index=True, return_inverse=True)
    for n, earlier in zip(indices.tolist(), indices[first[inverse]].tolist(), strict=True):
        if n != earlier:
            yield n, earlier


def shared(hashes: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, int]]:
    """(index in hashes, index in others) for rows that stand in both."""
    place = {int(value): n for n, value in reversed(list(enumerate(others.tolist())))}
    for n, value in enumerate(hashes.tolist()):
        if value in place:
            yield n, place[value]


def near(table: pa.Table, exact: np.ndarray, loose: np.ndarray, forget: Callable[[], None] = lambda: None) -> Iterator[tuple[int, int, float]]:
    """(index, an earlier index, share of common word triples) of rows that say almost the same, exact repeats left out.

    forget: gives back the memory that looking at rows of a large table took.
    """
    pairs = _by_minhash(table) if table.num_rows <= NEAR_ROWS else _by_ends(table, exact, loose, forget)
    seen = set()
    for later, earlier, alike in pairs:
        if later not in seen and exact[later] != exact[earlier] and alike >= ALIKE:
            seen.add(later)
            yield later, earlier, alike


def _by_ends(table: pa.Table, exact: np.ndarray, loose: np.ndarray, forget: Callable[[], None]) -> Iterator[tuple[int, int, float]]:
    column = table.column("messages")
    pairs = islice(((later, earlier) for later, earlier in repeated(loose) if exact[later] != exact[earlier]), CANDIDATES)
    while some := list(islice(pairs, TOGETHER)):
        numbers, sizes = triples([_text(column[n].as_py()) for pair in some for n in pair])
        own = np.split(numbers, np.cumsum(sizes)[:-1])
        for (later, earlier), one, other in zip(some, own[::2], own[1::2], strict=True):
            yield later, earlier, share(one, other)
        forget()


def _by_minhash(table: pa.Table) -> Iterator[tuple[int, int, float]]:
    found = [triples(texts) for texts in _texts(table)]
    sizes = np.concatenate([sizes for _, sizes in found]) if found else np.empty(0, np.int64)
    numbers = np.concatenate([numbers for numbers, _ in found]) if found else np.empty(0, np.uint64)
    ends = np.cumsum(sizes)
    filled = np.flatnonzero(sizes)
    if len(filled) < 2:
        return
    signatures = _signatures(numbers, (ends - sizes)[filled])
    checked: dict[int, tuple[int, float]] = {}
    width = HASHES // BANDS
    for band in range(BANDS):
        keys = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width]).view(f"V{4 * width}").ravel()
        for a, b in repeated(keys):
            later, earlier = int(filled[a]), int(filled[b])
            if checked.get(later, (0, 0.0))[1] < ALIKE:
                alike = share(*(numbers[ends[n] - sizes[n] : ends[n]] for n in (later, earlier)))
                if alike > checked.get(later, (0, 0.0))[1]:
                    checked[later] = (earlier, alike)
    for later in sorted(checked):
        yield later, *checked[later]


def _signatures(flat: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """MinHash signatures, one row each of HASHES values. flat: the triples of all texts; starts: where each text's begin."""
    made, draw = np.empty((len(starts), HASHES), np.uint32), np.random.default_rng(20261122)  # not at import: it costs 20 ms
    factors, summands = draw.integers(0, 1 << 32, HASHES, dtype=np.uint32) | np.uint32(1), draw.integers(0, 1 << 32, HASHES, dtype=np.uint32)
    high = (flat >> np.uint64(32)).astype(np.uint32)
    for k in range(HASHES):
        made[:, k] = np.minimum.reduceat(high * factors[k] + summands[k], starts)
    return made


def _texts(table: pa.Table) -> Iterator[list[str]]:
    """What the rows say, some rows at a time."""
    for batch in table.select(["messages"]).to_batches(max_chunksize=2000):
        lists = batch.column(0)
        contents = lists.flatten().field("content").to_pylist()
        ends = np.cumsum(lists.value_lengths().to_pylist()).tolist()
        yield [" \n".join(contents[a:b]) for a, b in zip([0, *ends], ends)]


def _text(messages: list[dict[str, str]]) -> str:
    return " \n".join(turn["content"] for turn in messages)
