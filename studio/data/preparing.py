"""prepare: from the order to encoded rows, with the record of what was dropped or cut. What the trainer calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studio.data.dataset import Conversations
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.data.splitting import split
from studio.errors import DataError
from studio.tokens import Encoder

Row = dict[str, list[int]]


@dataclass(frozen=True)
class Prepared:
    """train, eval: sequences of {"input_ids", "labels"}. record: what was dropped and cut, by kind, with row numbers."""

    train: list[Row]
    eval: list[Row]
    record: dict[str, Any]
    statistics: dict[str, Any]
    fingerprint: str
    stop: list[str] = field(default_factory=list)


def prepare(order: DataOrder, encoder: Encoder, seed: int = 42, report: Callable[[int, int], None] | None = None) -> Prepared:
    """Read, decide, split, encode. Raises DataError or TemplateError before anything is trained wrongly."""
    source = order.sources()[0].source
    dataset = read(source, order.format, order.mapping)
    selection = dataset.decide(order.problems)
    share = order.eval if isinstance(order.eval, float) else 0.0
    train, held = split(selection.conversations, share, seed)
    if isinstance(order.eval, str):
        held = read(order.eval, "auto", order.mapping).decide(order.problems).conversations
    encoder.gate([c["text"] if "text" in c else c["messages"] for c in train[:50]])
    record: dict[str, Any] = {"dropped": dict(selection.dropped), "cut": {}}
    rows, evals = _encode(train, encoder, record, report), _encode(held, encoder, record, None)
    if not rows:
        raise DataError("No row is left to train on.", "Raise max_length or look at the problems of the data.", "data")
    key = json.dumps([dataset.fingerprint, encoder.template.text, str(encoder.max_length), encoder.too_long, encoder.train_on, seed])
    lengths = [len(r["input_ids"]) for r in rows]
    trained = sum(len(r["labels"]) - r["labels"].count(-100) for r in rows)
    statistics = {"rows": len(rows), "eval_rows": len(evals), "tokens": sum(lengths), "trained": trained, "max": max(lengths)}
    return Prepared(rows, evals, record, statistics, hashlib.sha256(key.encode()).hexdigest()[:32], encoder.template.stop)


def _encode(conversations: Conversations, encoder: Encoder, record: dict[str, Any], report: Callable[[int, int], None] | None) -> list[Row]:
    rows: list[Row] = []
    for start in range(0, len(conversations), 256):
        batch = conversations[start : start + 256]
        for c, e in zip(batch, encoder.encode_batch([c["text"] if "text" in c else c["messages"] for c in batch]), strict=True):
            if e.cut:
                record["cut"].setdefault("over_limit", []).append(c["row"])
            if e.n_trained == 0 or (e.cut and encoder.too_long == "drop"):
                record["dropped"].setdefault("over_limit" if e.cut else "untrained", []).append(c["row"])
                continue
            rows.append({"input_ids": e.ids, "labels": e.labels})
        if report:
            report(min(start + 256, len(conversations)), len(conversations))
    return rows
