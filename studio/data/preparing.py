"""prepare: from the order to encoded rows, with the record of what was dropped or cut. What the trainer calls.

Kept on disk under a fingerprint of data, decisions, template, tokenizer, length, what is trained on, and seed: the same
order again is opened, not encoded again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from studio.data import store
from studio.data.dataset import Conversations, Dataset
from studio.data.encoded import EncodedRows, Writer, open_rows
from studio.data.mixing import indices
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.data.splitting import split
from studio.errors import DataError, TemplateError
from studio.home import room
from studio.tokens import Encoded, Encoder

Report = Callable[[int, int], None]
VERSION = 4  # of what is stored; raise it when ids or labels come out otherwise
BATCH = 250  # rows encoded at a time
GATED = 50  # rows the gate looks at


@dataclass(frozen=True)
class Prepared:
    """train, eval: sequences of {"input_ids", "labels"}. stop: what ends a turn.

    record: {"sources": [{"kept", "weight", "found": {kind: rows}, …}], "dropped": {kind: {"count", "rows"}}, "cut": the same, "tokens_lost", "eval": {…}};
    rows as text, "3, 7-12", with the source in front where there are several.
    statistics: rows, eval_rows, tokens, trained (tokens), max (tokens of the longest row), of the training rows.
    """

    train: EncodedRows
    eval: EncodedRows
    record: dict[str, Any]
    statistics: dict[str, Any]
    fingerprint: str
    stop: list[str] = field(default_factory=list)


class _Record:
    """Row numbers by kind and source."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[int]]] = {}

    def add(self, kind: str, source: str, rows: Any) -> None:
        if len(rows):
            self.rows.setdefault(kind, {}).setdefault(source, []).extend(map(int, rows))

    def told(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {"count": sum(map(len, by.values())), "rows": "; ".join(f"{s}: {ranges(r)}" if len(by) > 1 else ranges(r) for s, r in by.items())}
            for kind, by in self.rows.items()
        }


def ranges(rows: list[int]) -> str:
    """Row numbers in short: "3, 7-12"."""
    found: list[list[int]] = []
    for row in sorted(set(rows)):
        if found and row == found[-1][1] + 1:
            found[-1][1] = row
        else:
            found.append([row, row])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def prepare(order: DataOrder, encoder: Encoder, seed: int = 42, report: Report | None = None) -> Prepared:
    """Read, decide, split, encode, mix. report(rows done, rows in all).

    Raises DataError or TemplateError before anything would be trained wrongly.
    """
    datasets = [read(source.source, order.format, order.mapping) for source in order.sources()]
    own = read(order.eval, order.format if order.format == "chosen" else "auto", order.mapping) if isinstance(order.eval, str) else None
    for dataset in [*datasets, *([own] if own else [])]:
        _usable(dataset)
    key = _key(order, [*datasets, *([own] if own else [])], encoder, seed)
    folder = room("datasets") / f"encoded-{key}"
    if not (folder / "record.json").is_file():
        made = store.draft()
        try:
            _encode_all(order, datasets, own, encoder, seed, made, report or (lambda done, total: None))
            store.keep(made, folder.name)
        finally:
            if made.exists():
                shutil.rmtree(made)
    about = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    mixed = np.load(folder / "order.npy")
    train, held = open_rows(folder / "train.arrow", mixed), open_rows(folder / "eval.arrow")
    return Prepared(train, held, about["record"], about["statistics"], key, encoder.template.stop)


def _usable(dataset: Dataset) -> None:
    if dataset.stage != "sft":
        raise DataError(
            f"{dataset.source} holds preference data ({dataset.reason or dataset.format}); no method here learns from comparisons.",
            "Set data.format to chosen to learn the chosen answers, or take other data."
            if dataset.format == "preference"
            else "Take the good answers alone, as prompt and completion.",
            "data.train",
        )


def _key(order: DataOrder, datasets: list[Dataset], encoder: Encoder, seed: int) -> str:
    tokenizer = hashlib.sha256((encoder.folder / "tokenizer.json").read_bytes()).hexdigest()
    what = [
        VERSION, [d.fingerprint for d in datasets], [s.weight for s in order.sources()], order.eval if not isinstance(order.eval, str) else "own",
        order.problems, encoder.template.text, encoder.template.special, encoder.max_length, encoder.too_long, encoder.train_on, seed, tokenizer,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def _encode_all(order: DataOrder, datasets: list[Dataset], own: Dataset | None, encoder: Encoder, seed: int, folder: Path, report: Report) -> None:
    """Write train.arrow, eval.arrow, order.npy and record.json."""
    dropped, cut, held_back, parts, lost = _Record(), _Record(), _Record(), [], 0
    for dataset in datasets:
        selection = dataset.decide(order.problems)
        for kind, rows in selection.dropped.items():
            dropped.add(kind, dataset.source, rows)
        share = float(order.eval) if isinstance(order.eval, (int, float)) else 0.0
        parts.append((dataset, *split(selection.conversations, share, seed)))
    held = [(dataset, part) for dataset, _, part in parts]
    if own is not None:
        selection = own.decide(order.problems)
        for kind, rows in selection.dropped.items():
            held_back.add(kind, own.source, rows)
        held = [(own, selection.conversations)]
    seen = np.unique(np.concatenate([_hashes(dataset, train) for dataset, train, _ in parts]))
    total = sum(len(train) for _, train, _ in parts) + sum(len(part) for _, part in held)
    _gate(encoder, parts)
    done, counts = 0, []
    with Writer(folder / "train.arrow") as writer:
        for dataset, train, _ in parts:
            before = writer.rows
            for batch, encoded in _batches(train, encoder):
                lost += _sort(batch, encoded, encoder, dataset.source, writer, dropped, cut)
                done += len(batch)
                report(done, total)
            counts.append(writer.rows - before)
        trained = np.array(writer.trained, np.int64)
    if not sum(counts):
        raise DataError("No row is left to train on.", _why(dropped), "data")
    eval_lost, decision = 0, order.problems.get("leak", "drop" if own is None else "keep")
    with Writer(folder / "eval.arrow") as writer:
        for dataset, part in held:
            part = _without_leaks(dataset, part, seen, decision, held_back)
            for batch, encoded in _batches(part, encoder):
                eval_lost += _sort(batch, encoded, encoder, dataset.source, writer, held_back, held_back)
                report(min(done := done + len(batch), total), total)
        eval_rows = writer.rows
    mixed, at = [], 0
    for n, (source, count) in enumerate(zip(order.sources(), counts, strict=True)):
        mixed.append(at + indices(count, source.weight, seed + n))
        at += count
    chosen = np.concatenate(mixed)
    np.save(folder / "order.npy", chosen)
    sizes = open_rows(folder / "train.arrow", chosen).lengths()
    statistics = {"rows": len(chosen), "eval_rows": eval_rows, "tokens": int(sizes.sum()), "trained": int(trained[chosen].sum()), "max": int(sizes.max())}
    record = {
        "sources": [
            {"source": d.source, "format": d.format, "fingerprint": d.fingerprint, "rows": d.rows, "kept": count, "weight": s.weight, "found": d.counts}
            for d, s, count in zip(datasets, order.sources(), counts, strict=True)
        ],
        "dropped": dropped.told(), "cut": cut.told(), "tokens_lost": lost,
        "eval": {"source": own.source if own else "a share", "rows": eval_rows, "dropped": held_back.told(), "tokens_lost": eval_lost}
        | ({} if own else {"share": order.eval or 0, "seed": seed}),
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps({"record": record, "statistics": statistics}), encoding="utf-8")


def _gate(encoder: Encoder, parts: list[tuple[Dataset, Conversations, Conversations]]) -> None:
    for _, train, _ in parts:
        step = max(1, len(train) // GATED)
        encoder.gate([train[n] for n in range(0, len(train), step)][:GATED])


def _batches(conversations: Conversations, encoder: Encoder) -> Any:
    """(conversations, their Encoded or the TemplateError of each) batch by batch."""
    for start in range(0, len(conversations), BATCH):
        batch = list(Conversations(conversations.table.slice(start, BATCH)))
        try:
            yield batch, encoder.encode_batch(batch)
        except TemplateError:
            yield batch, [_one(encoder, conversation) for conversation in batch]


def _one(encoder: Encoder, conversation: dict[str, Any]) -> Encoded | None:
    try:
        return encoder.encode(conversation)
    except TemplateError:
        return None


def _sort(batch: list[Any], encoded: list[Any], encoder: Encoder, source: str, writer: Writer, dropped: _Record, cut: _Record) -> int:
    """Write the rows that can be trained on, record the others. Gives the tokens lost by cutting."""
    kept, lost = [], 0
    for conversation, e in zip(batch, encoded, strict=True):
        row = [conversation["row"]]
        if e is None:
            dropped.add("unrenderable", source, row)
        elif e.cut and encoder.too_long == "drop":
            dropped.add("over_limit", source, row)
        elif e.n_trained == 0:
            dropped.add("untrained", source, row)
        else:
            kept.append(e)
            if e.cut:
                cut.add("over_limit", source, row)
                lost += e.cut
    writer.add(kept)
    return lost


def _hashes(dataset: Dataset, conversations: Conversations) -> np.ndarray:
    """The hashes of these rows of a dataset."""
    if conversations is dataset.conversations:
        return dataset.exact
    return dataset.exact[np.searchsorted(dataset.conversations.numbers, conversations.numbers)]


def _without_leaks(dataset: Dataset, part: Conversations, seen: np.ndarray, decision: str, record: _Record) -> Conversations:
    """The evaluation rows that are not training rows as well; which those were is recorded."""
    leaked = np.isin(_hashes(dataset, part), seen) if len(part) else np.empty(0, bool)
    rows = part.numbers[leaked]
    if len(rows) and decision == "stop":
        raise DataError(
            f"{len(rows)} rows of {dataset.source} stand in the training data too: rows {ranges(rows.tolist())[:200]}.",
            "Take them out of one of the two.",
            "data.eval",
        )
    record.add("leak" if decision == "drop" else "leak_kept", dataset.source, rows)
    return part.without(set(rows.tolist())) if decision == "drop" else part


def _why(dropped: _Record) -> str:
    told = ", ".join(f"{kind}: {what['count']}" for kind, what in dropped.told().items())
    return f"Dropped were {told}. Raise max_length, or look at the problems of the data." if told else "The data is empty."
