"""Runs of three words, counted by NumPy as a regular expression counts them; near repeats found by them."""

from __future__ import annotations

import random
import re

import numpy as np
import pyarrow as pa

from studio.data.repeats import near
from studio.data.triples import SHORT, share, triples

WORD = re.compile(r"[a-z0-9]+|[^\W\da-z_]")
SAID = ["the", "River", "stone", "漢字", "naïve", "É", "x1", "42", "٣٤", "½", "_under", "snake_case", "don't", "ß", "İstanbul", "😀", "𠀀", "\x00", "\ud800", "a"]  # noqa: E501


def expected(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return set(zip(words, words[1:], words[2:])) if len(words) >= SHORT else set()


def test_triples_are_those_of_the_words() -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(SAID, k=draw.randint(0, 30))) for _ in range(2000)]
    numbers, sizes = triples(texts)
    own = np.split(numbers, np.cumsum(sizes)[:-1])
    assert [len(np.unique(one)) for one in own] == [len(expected(text)) for text in texts]
    for n in range(0, len(texts), 2):
        both = [expected(text) for text in texts[n : n + 2]]
        together = len(both[0] | both[1])
        assert abs(share(own[n], own[n + 1]) - (len(both[0] & both[1]) / together if together else 0)) < 1e-9


def test_no_text_has_triples() -> None:
    assert [part.tolist() for part in triples(["", "four words are few"])] == [[], [0, 0]]


def test_near_repeats_are_found() -> None:
    draw = random.Random(2)
    texts = [" ".join(f"w{draw.randrange(5000)}" for _ in range(60)) for _ in range(300)]
    alike = [text.replace(text.split()[30], "other") for text in texts[:100]]
    table = pa.table({"messages": pa.array([[{"role": "user", "content": text}] for text in texts + alike])})
    numbers = np.arange(400, dtype=np.uint64)
    assert [(later, earlier) for later, earlier, _ in near(table, numbers, numbers)] == [(300 + n, n) for n in range(100)]
