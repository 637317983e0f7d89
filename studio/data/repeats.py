"""Rows that stand there twice: with equal text, or with equal text but for case, spaces and punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np

LEFT_OUT = (
    bytes(range(33)) + b".,;:!?'\"`*_#"
)  # blanks and signs of which a text may have more or fewer and still say the same
SMALL = bytes(range(256)).lower()
WINDOW, ENDING = 64, 24  # bytes looked at, bytes compared
WIDE = re.compile("[\\s。、｡､·•“”„‟‘’‚‛«»‹›「」『』《》〈〉…‥—–¿¡،؛؟।\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff]+")


def normalized(text: bytes) -> bytes:
    """The text, in UTF-8, without case, blanks and punctuation, and in compatibility form (NFKC); as it is where nothing would be left."""
    if not text.isascii():
        text = WIDE.sub("", unicodedata.normalize("NFKC", text.decode()).casefold()).encode() or text
    return text.translate(SMALL, LEFT_OUT) or text


def ending_key(text: bytes) -> bytes:
    """The first and the last signs of the folded text: equal where two folded texts are, and found in half the time."""
    if text.isascii():
        begin, end = (
            text[:WINDOW].translate(SMALL, LEFT_OUT)[:ENDING],
            text[-WINDOW:].translate(SMALL, LEFT_OUT)[-ENDING:],
        )
        if len(begin) == len(end) == ENDING:
            return begin + end
    whole = normalized(text)
    return whole[:ENDING] + whole[-ENDING:]


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
