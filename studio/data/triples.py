"""Runs of three words, as numbers: by these, texts are compared. All texts of a batch at once, with NumPy.

A word is a run of ASCII letters and digits, whatever their case, or a single letter of another script. Texts of fewer than
SHORT words have no triples: they are too short to be alike by chance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SHORT = 5  # words
RUN, SINGLE = 1, 2
LAST, IDEOGRAPHS = 0xFFFF, 0x20000  # of what lies beyond the last looked-up code point, letters are those from there on
ODD = np.uint64(0x9E3779B97F4A7C15)
ROUND = 64  # places after which the factors of a word's letters begin anew


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    """For every code point up to LAST: part of a RUN, a SINGLE letter, or 0."""
    def kind(sign: str) -> int:
        return RUN if sign.isascii() and sign.isalnum() else SINGLE if sign.isalnum() and not sign.isdecimal() else 0

    return np.array([kind(chr(point)) for point in range(LAST)] + [0], np.uint8)


@lru_cache(maxsize=1)
def _factors() -> np.ndarray:
    return np.random.default_rng(20261122).integers(1, 1 << 63, ROUND, dtype=np.uint64) | np.uint64(1)


def triples(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of all triples, text by text; how many each text has). Equal triples of one text stand there as often as it says them."""
    lowered = [text.lower() for text in texts]
    begins = np.cumsum([0, *(len(text) + 1 for text in lowered)])
    codes = np.frombuffer(" ".join(lowered).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = np.where(codes >= IDEOGRAPHS, np.uint8(SINGLE), _kinds()[np.minimum(codes, LAST)])
    words, places = _words(codes, kinds)
    text = np.searchsorted(begins, places, side="right") - 1  # of each word
    counts = np.bincount(text, minlength=len(texts))
    whole = (text[2:] == text[:-2]) & (counts[text[2:]] >= SHORT)
    mixed = (words[:-2] * ODD) ^ (words[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F) >> np.uint64(3)) ^ (words[2:] * np.uint64(0x165667B19E3779F9))
    return mixed[whole], np.where(counts >= SHORT, counts - 2, 0)


def _words(codes: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a number for every word, where each begins)."""
    at = np.flatnonzero(kinds)
    if not len(at):
        return np.empty(0, np.uint64), at
    kind = kinds[at]
    begins = np.ones(len(at), bool)
    begins[1:] = (kind[1:] == SINGLE) | (kind[:-1] == SINGLE) | (at[1:] != at[:-1] + 1)
    first = np.flatnonzero(begins)
    place = np.arange(len(at)) - np.repeat(first, np.diff(np.append(first, len(at))))
    letters = (codes[at].astype(np.uint64) + np.uint64(1)) * _factors()[place % ROUND]
    numbers = np.add.reduceat(letters, first)
    return (numbers ^ numbers >> np.uint64(31)) * ODD, at[first]


def share(one: np.ndarray, other: np.ndarray) -> float:
    """The share of different triples that two texts have in common (Jaccard)."""
    one, other = np.unique(one), np.unique(other)
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common) if common else 0.0
