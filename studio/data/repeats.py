"""Rows that stand there twice: exactly, nearly, or in both the training and the evaluation data.

Exact: equal text of all turns. Nearly: for files of up to NEAR_ROWS rows, at least four fifths of their runs of three
words in common (MinHash, Broder 1997, with 64 hashes in 16 bands of 4, and then the true share). In larger files: the
same first and last 40 bytes of the row, and then the true share.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa

NEAR_ROWS = 50_000
CANDIDATES = 3_000
ALIKE = 0.8  # Jaccard share of common word triples
SHORT = 5  # words
HASHES, BANDS = 64, 16
WORD = re.compile(r"[a-z0-9]+|[^\W\da-z_]")


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
    for later, earlier, share in pairs:
        if later not in seen and exact[later] != exact[earlier] and share >= ALIKE:
            seen.add(later)
            yield later, earlier, share


def _by_ends(table: pa.Table, exact: np.ndarray, loose: np.ndarray, forget: Callable[[], None]) -> Iterator[tuple[int, int, float]]:
    column = table.column("messages")
    pairs = ((later, earlier) for later, earlier in repeated(loose) if exact[later] != exact[earlier])
    for looked_at, (later, earlier) in enumerate(islice(pairs, CANDIDATES), 1):
        one, other = _said(column, later), _said(column, earlier)
        common = len(one & other)
        yield later, earlier, common / (len(one) + len(other) - common) if common else 0.0
        if looked_at % 50 == 0:
            forget()
    forget()


def _said(column: pa.ChunkedArray, n: int) -> set[tuple[str, ...]]:
    """The runs of three words of row n, as _triples has them."""
    words = WORD.findall(" \n".join(turn["content"] for turn in column[n].as_py()).lower())
    return set(zip(words, words[1:], words[2:])) if len(words) >= SHORT else set()


def _by_minhash(table: pa.Table) -> Iterator[tuple[int, int, float]]:
    known = _Numbers()
    triples = [_triples(_words(text, known)) for text in _texts(table)]
    numbers = [np.frombuffer(t, np.uint64) for t in triples]
    filled = [n for n, t in enumerate(numbers) if len(t)]
    if len(filled) < 2:
        return
    signatures = _signatures([numbers[n] for n in filled])
    checked: dict[int, tuple[int, float]] = {}
    width = HASHES // BANDS
    for band in range(BANDS):
        keys = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width]).view(f"V{8 * width}").ravel()
        for a, b in repeated(keys):
            later, earlier = filled[a], filled[b]
            if checked.get(later, (0, 0.0))[1] < ALIKE:
                share = _jaccard(triples[later], triples[earlier])
                if share > checked.get(later, (0, 0.0))[1]:
                    checked[later] = (earlier, share)
    for later in sorted(checked):
        yield later, *checked[later]


def _signatures(numbers: list[np.ndarray]) -> np.ndarray:
    """MinHash signatures, one row each of HASHES values."""
    flat, starts = np.concatenate(numbers), np.concatenate(([0], np.cumsum([len(n) for n in numbers[:-1]]))).astype(np.int64)
    made, draw = np.empty((len(numbers), HASHES), np.uint64), np.random.default_rng(20261122)  # not at import: it costs 20 ms
    factors, summands = draw.integers(1, 1 << 61, HASHES, dtype=np.uint64) | np.uint64(1), draw.integers(0, 1 << 61, HASHES, dtype=np.uint64)
    for k in range(HASHES):
        mixed = flat * factors[k] + summands[k]
        made[:, k] = np.minimum.reduceat(mixed >> np.uint64(16), starts)
    return made


class _Numbers(dict[str, int]):
    """A number for every word, the same in every process (unlike hash)."""

    def __missing__(self, word: str) -> int:
        self[word] = number = zlib.crc32(word.encode(errors="replace"))
        return number


def _words(text: str, numbers: _Numbers) -> list[int]:
    return [numbers[word] for word in WORD.findall(text.lower())]


def _triples(words: list[int]) -> bytes:
    """The set of runs of three words, as 64-bit numbers. Rows of fewer than SHORT words are too short to be alike by chance."""
    if len(words) < SHORT:
        return b""
    w = np.array(words, np.uint64)
    mixed = (w[:-2] * np.uint64(0x9E3779B97F4A7C15)) ^ (w[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F) >> np.uint64(3)) ^ (w[2:] * np.uint64(0x165667B19E3779F9))
    return np.unique(mixed).tobytes()


def _jaccard(a: bytes, b: bytes) -> float:
    one, other = np.frombuffer(a, np.uint64), np.frombuffer(b, np.uint64)
    if not len(one) or not len(other):
        return 0.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _texts(table: pa.Table) -> Iterator[str]:
    for batch in table.select(["messages"]).to_batches(max_chunksize=2000):
        lists = batch.column(0)
        contents = lists.flatten().field("content").to_pylist()
        at = 0
        for count in lists.value_lengths().to_pylist():
            yield " \n".join(contents[at : at + count])
            at += count
