"""Splits a text that is longer than the limit at the end of a paragraph, sentence or word. No token is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence

from studio.kernels import IGNORE_INDEX
from studio.tokens import Encoded

SENTENCE = re.compile(r"[.!?…][\"'”’)\]]*\s*$|[。！？；][”’」』）]*\s*$")


def split_row(whole: Encoded, limit: int, overlap: int = 0) -> list[Encoded]:
    """The row as rows of at most `limit` tokens; the first `overlap` tokens of each repeat the one before, with labels
    ignored.

    With an overlap, every token but the first is trained exactly once; without one, the first token of every part has
    no context and is not trained.
    """
    overlap = min(overlap, limit // 2)
    parts, start, trained_until = [], 0, 0  # trained_until: tokens already trained
    while True:
        stop = (
            len(whole.ids)
            if start + limit >= len(whole.ids)
            else _best_split(whole, start + max(limit // 2, overlap + 1), start + limit)
        )
        labels = whole.labels[start:stop]
        read = max(1, trained_until - start)
        labels[:read] = [IGNORE_INDEX] * min(read, len(labels))
        trained = len(labels) - labels.count(IGNORE_INDEX)
        parts.append(Encoded(whole.ids[start:stop], labels, whole.text, whole.offsets[start:stop], 0, trained))
        if stop == len(whole.ids):
            return parts
        trained_until, start = stop, stop - overlap


def _best_split(whole: Encoded, first: int, last: int) -> int:
    """The token from `first` to `last` before which the text parts best; of equals the last one."""
    best, rank = last, -1
    for n in range(last, first - 1, -1):
        rank_here = _split_rank(whole.text, whole.offsets, n)
        if rank_here > rank:
            best, rank = n, rank_here
        if rank == 4:
            break
    return best


def _split_rank(text: str, offsets: Sequence[tuple[int, int]], n: int) -> int:
    """4 after a paragraph, 3 a line, 2 a sentence, 1 a word, 0 elsewhere, -1 inside a character of several tokens."""
    if offsets[n] == offsets[n - 1] or offsets[n][0] < offsets[n - 1][1]:
        return -1
    at = offsets[n][0]
    before, after = text[max(0, at - 12) : at], text[at : at + 2]
    blank = before.rstrip(" \t")
    if blank.endswith("\n\n") or (blank.endswith("\n") and after.startswith("\n")):
        return 4
    if blank.endswith("\n"):
        return 3
    if SENTENCE.search(before) and (after[:1].isspace() or before[-1:].isspace() or before[-1:] > "\x7f"):
        return 2
    return 1 if after[:1].isspace() or before[-1:].isspace() else 0
