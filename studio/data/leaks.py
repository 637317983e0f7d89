"""Evaluation rows that are training rows too."""

from __future__ import annotations

from typing import Any

import numpy as np

from studio.data.chunk import normalized_hash
from studio.data.dataset import Conversations, Dataset
from studio.data.record import RowsByKind, ranges
from studio.data.splitting import SourceSplit
from studio.errors import DataError


def _hashes(of: np.ndarray, dataset: Dataset, conversations: Conversations) -> np.ndarray:
    """The hashes of these conversations. of: those of all rows of their data set."""
    if conversations is dataset.conversations:
        return of
    return of[np.searchsorted(dataset.conversations.row_numbers, conversations.row_numbers)]


def _leaked(dataset: Dataset, part: Conversations, splits: list[SourceSplit]) -> np.ndarray:
    """The numbers of the evaluation rows that are trained on too, apart from case, blanks and punctuation."""
    same = np.isin(
        _hashes(dataset.exact, dataset, part),
        np.concatenate([_hashes(split.dataset.exact, split.dataset, split.train) for split in splits]),
    )
    endings, near, known = _hashes(dataset.endings, dataset, part), np.zeros(len(part), bool), set()
    for split in splits:
        others = _hashes(split.dataset.endings, split.dataset, split.train)
        near |= np.isin(endings, others) & ~same
        known |= set(map(normalized_hash, split.train.take(np.flatnonzero(np.isin(others, endings[near])))))
    repeated = [row["row"] for row in part.take(np.flatnonzero(near)) if normalized_hash(row) in known]
    return np.union1d(part.row_numbers[same], np.array(repeated, np.int64))


def without_leaks(
    dataset: Dataset, part: Conversations, splits: list[SourceSplit], decision: str, record: RowsByKind
) -> Conversations:
    """The evaluation rows that are not training rows as well; which those were is recorded."""
    rows = _leaked(dataset, part, splits) if len(part) else part.row_numbers
    if len(rows) and decision == "stop":
        raise DataError(
            f"{len(rows)} rows of {dataset.source} stand in the training data too: rows {ranges(rows.tolist())[:200]}.",
            "Take them out of one of the two.",
            "data.eval",
        )
    record.add("leak" if decision == "drop" else "leak_kept", dataset.source, rows)
    return part.without(set(rows.tolist())) if decision == "drop" else part


def leak_note(evaluation: dict[str, Any]) -> str | None:
    """What is said where rows held out were not measured on because they are trained on; evaluation: a record's."""
    count = evaluation.get("dropped", {}).get("leak", {}).get("count")
    if not count:
        return None
    return (
        f"Rows held out that say the same as rows trained on: {count}. They are not measured on; "
        f"{evaluation['rows']} are left."
    )
