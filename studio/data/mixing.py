"""Mixing: several data sets with weights, such as a little general data against forgetting."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from studio.data.dataset import Conversations


def sample_indices(count: int, weight: float, seed: int) -> np.ndarray:
    """The rows of an epoch at this weight: all `count` rows floor(weight) times, and a random part once more."""
    whole = int(weight)
    part = np.random.default_rng(seed).permutation(count)[: round(count * (weight - whole))]
    return np.concatenate([np.tile(np.arange(count), whole), np.sort(part)]).astype(np.int64)


def shuffled(rows: int, seed: int, epoch: int) -> list[int]:
    """A permutation of `rows` rows for an epoch; depends only on seed and epoch."""
    numbers = list(range(rows))
    random.Random(f"{seed} {epoch}").shuffle(numbers)
    return numbers


def mix(parts: Sequence[tuple[Conversations, float]], seed: int = 42) -> Conversations:
    """Several data sets, each repeated by its weight, concatenated. The trainer shuffles them."""
    tables = [c.take(sample_indices(len(c), weight, seed + n)).table for n, (c, weight) in enumerate(parts)]
    return Conversations(pa.concat_tables(tables))
