"""Duplicate rows: of equal text, or of equal text but for case, spaces and punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np

IGNORED_BYTES = bytes(range(33)) + b".,;:!?'\"`*_#"
LOWERCASE = bytes(range(256)).lower()
WINDOW_BYTES, KEY_BYTES = 64, 24  # bytes looked at, bytes compared
IGNORED_CHARACTERS = re.compile(
    "[\\s。、｡､·•“”„‟‘’‚‛«»‹›「」『』《》〈〉…‥—–¿¡،؛؟।\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff]+"
)


def normalized(text: bytes) -> bytes:
    """The UTF-8 text without case, blanks and punctuation, in NFKC; unchanged where nothing would be left."""
    if not text.isascii():
        text = IGNORED_CHARACTERS.sub("", unicodedata.normalize("NFKC", text.decode()).casefold()).encode() or text
    return text.translate(LOWERCASE, IGNORED_BYTES) or text


def ending_keys(texts: list[bytes]) -> Iterator[bytes]:
    """Of each text the first and last KEY_BYTES when normalized: cheap, and equal for equal normalized texts."""
    for text in texts:
        kept = (text[:WINDOW_BYTES] + text[-WINDOW_BYTES:]).translate(LOWERCASE, IGNORED_BYTES)
        if len(kept) < WINDOW_BYTES + KEY_BYTES or not text.isascii():  # else each window gave a whole key
            kept = normalized(text)
        yield kept[:KEY_BYTES] + kept[-KEY_BYTES:]


def repeated(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """(index, index of the first row with the same hash) of every row whose hash occurred before."""
    in_order = np.sort(hashes)
    repeated_hashes = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    if not len(repeated_hashes):
        return
    positions = np.minimum(np.searchsorted(repeated_hashes, hashes), len(repeated_hashes) - 1)
    indices = np.flatnonzero(repeated_hashes[positions] == hashes)
    _, first, group = np.unique(hashes[indices], return_index=True, return_inverse=True)
    for n, earlier in zip(indices.tolist(), indices[first[group]].tolist(), strict=True):
        if n != earlier:
            yield n, earlier
