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
from typing import Any, NamedTuple

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
VERSION = 5  # of what is stored; raise it when ids or labels come out otherwise
BATCH = 250  # rows encoded at a time
GATED = 50  # rows the gate looks at


@dataclass(frozen=True)
class Prepared:
    """train, eval: sequences of {"input_ids", "labels"}. stop: what ends a turn.

    record: {"sources": [{"kept", "weight", "found": {kind: rows}, …}], "dropped": {kind: {"count", "rows"}}, "cut": the same, "tokens_lost", "eval": {…}};
    rows as text, "3, 7-12", with the source in front where there are several.
    statistics: rows, eval_rows, tokens, trained (tokens), max (tokens of the longest row), of the training rows.
    """

    train: Any  # EncodedRows, or ahead.Growing
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


class Drawn(NamedTuple):
    """A source after the decisions on its problems: the rows to train on and those held out of it."""

    dataset: Dataset
    train: Conversations
    held: Conversations


Held = tuple[Dataset, Conversations]


class Recording:
    """What is dropped and cut on the way, and the tokens lost by it. seed: of the split."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dropped, self.cut, self.held_back, self.lost, self.eval_lost = _Record(), _Record(), _Record(), 0, 0


def prepare(order: DataOrder, encoder: Encoder, seed: int = 42, report: Report | None = None, ahead: bool = False, draft: Path | None = None) -> Prepared:
    """Read, decide, split, encode, mix. report(rows done, rows in all).

    ahead: a large set is given while its later rows are still being encoded (ahead.py); draft: where they are written meanwhile.
    Raises DataError or TemplateError before anything would be trained wrongly.
    """
    from studio.data import ahead as large  # it encodes by what stands here
    datasets = [read(source.source, order.format, order.mapping) for source in order.sources()]
    own = read(order.eval, order.format if order.format == "chosen" else "auto", order.mapping) if isinstance(order.eval, str) else None
    for dataset in [*datasets, *([own] if own else [])]:
        _usable(dataset)
    key = _key(order, [*datasets, *([own] if own else [])], encoder, seed)
    folder = room("datasets") / f"encoded-{key}"
    if not (folder / "record.json").is_file():
        record = Recording(seed)
        drawn, held = _drawn(order, datasets, own, seed, record)
        counts = [len(part.train) for part in drawn]
        _gate(encoder, drawn)
        if ahead and sum(counts) >= large.LARGE:
            return large.beside(order, encoder, seed, key, counts)
        made = store.draft(draft)
        try:
            encode = large.encode if sum(counts) >= large.LARGE else _encode_all
            encode(order, drawn, held, encoder, seed, made, record, report or (lambda done, total: None))
            store.keep(made, folder.name)
        finally:
            if made.exists():
                shutil.rmtree(made)
    about = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    mixed = np.load(folder / "order.npy")
    train = open_rows(folder / "train.arrow", mixed) if (folder / "train.arrow").is_file() else large.parts(folder, mixed)
    return Prepared(train, open_rows(folder / "eval.arrow"), about["record"], about["statistics"], key, encoder.template.stop)


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


def _drawn(order: DataOrder, datasets: list[Dataset], own: Dataset | None, seed: int, record: Recording) -> tuple[list[Drawn], list[Held]]:
    """Each source after the decisions on its problems, and what is held out."""
    drawn = []
    for dataset in datasets:
        selection = dataset.decide(order.problems)
        for kind, rows in selection.dropped.items():
            record.dropped.add(kind, dataset.source, rows)
        share = float(order.eval) if isinstance(order.eval, (int, float)) else 0.0
        drawn.append(Drawn(dataset, *split(selection.conversations, share, seed)))
    if own is None:
        return drawn, [(part.dataset, part.held) for part in drawn]
    selection = own.decide(order.problems)
    for kind, rows in selection.dropped.items():
        record.held_back.add(kind, own.source, rows)
    return drawn, [(own, selection.conversations)]


def _encode_all(order: DataOrder, drawn: list[Drawn], held: list[Held], encoder: Encoder, seed: int, folder: Path, record: Recording, report: Report) -> None:
    """Write train.arrow, eval.arrow, order.npy and record.json."""
    total = sum(len(part.train) for part in drawn) + sum(len(part) for _, part in held)
    done, counts = 0, []
    with Writer(folder / "train.arrow") as writer:
        for dataset, train, _ in drawn:
            before = writer.rows
            for batch, encoded in batches(train, encoder):
                made = [judged(conversation, e, encoder, dataset.source, record) for conversation, e in zip(batch, encoded, strict=True)]
                writer.add([e for e in made if e is not None])
                done += len(batch)
                report(done, total)
            counts.append(writer.rows - before)
        trained = np.array(writer.trained, np.int64)
    if not sum(counts):
        raise DataError("No row is left to train on.", why(record), "data")
    eval_rows = write_held(order, drawn, held, encoder, folder / "eval.arrow", record)
    report(total, total)
    mixed, at = [], 0
    for n, (source, count) in enumerate(zip(order.sources(), counts, strict=True)):
        mixed.append(at + indices(count, source.weight, seed + n))
        at += count
    chosen = np.concatenate(mixed)
    np.save(folder / "order.npy", chosen)
    write_record(folder, order, drawn, held, counts, open_rows(folder / "train.arrow", chosen), trained[chosen], record, eval_rows)


def write_held(order: DataOrder, drawn: list[Drawn], held: list[Held], encoder: Encoder, file: Path, record: Recording) -> int:
    """Write the rows held out that are not training rows as well; returns how many."""
    seen = np.unique(np.concatenate([_hashes(part.dataset, part.train) for part in drawn]))
    decision = order.problems.get("leak", "keep" if isinstance(order.eval, str) else "drop")
    with Writer(file) as writer:
        for dataset, part in held:
            for batch, encoded in batches(_without_leaks(dataset, part, seen, decision, record.held_back), encoder):
                made = [judged(conversation, e, encoder, dataset.source, record, held=True) for conversation, e in zip(batch, encoded, strict=True)]
                writer.add([e for e in made if e is not None])
        return writer.rows


def write_record(folder: Path, order: DataOrder, drawn: list[Drawn], held: list[Held], counts: list[int], rows: EncodedRows, trained: np.ndarray,
                 record: Recording, eval_rows: int) -> None:
    """The record of what an epoch sees (rows; trained: trained tokens of each) and of what was left out."""
    sizes = rows.lengths()
    statistics = {"rows": len(rows), "eval_rows": eval_rows, "tokens": int(sizes.sum()), "trained": int(trained.sum()), "max": int(sizes.max())}
    told = {
        "sources": [
            {"source": part.dataset.source, "format": part.dataset.format, "fingerprint": part.dataset.fingerprint, "rows": part.dataset.rows, "kept": count,
             "weight": source.weight, "found": part.dataset.counts} for part, source, count in zip(drawn, order.sources(), counts, strict=True)
        ],
        "dropped": record.dropped.told(), "cut": record.cut.told(), "tokens_lost": record.lost,
        "eval": {"source": held[0][0].source if isinstance(order.eval, str) else "a share", "rows": eval_rows, "dropped": record.held_back.told(),
                 "tokens_lost": record.eval_lost} | ({} if isinstance(order.eval, str) else {"share": order.eval or 0, "seed": record.seed}),
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps({"record": told, "statistics": statistics}), encoding="utf-8")


def _gate(encoder: Encoder, drawn: list[Drawn]) -> None:
    for _, train, _ in drawn:
        step = max(1, len(train) // GATED)
        encoder.gate([train[n] for n in range(0, len(train), step)][:GATED])


def batches(conversations: Conversations, encoder: Encoder) -> Any:
    """(conversations, their Encoded or the TemplateError of each) batch by batch."""
    for start in range(0, len(conversations), BATCH):
        batch = conversations.some(start, BATCH)
        try:
            yield batch, encoder.encode_batch(batch)
        except TemplateError:
            yield batch, [_one(encoder, conversation) for conversation in batch]


def _one(encoder: Encoder, conversation: dict[str, Any]) -> Encoded | None:
    try:
        return encoder.encode(conversation)
    except TemplateError:
        return None


def judged(conversation: dict[str, Any], e: Encoded | None, encoder: Encoder, source: str, record: Recording, held: bool = False) -> Encoded | None:
    """The row if it can be trained on; else None, and recorded is why. held: of the rows held out."""
    dropped, row = record.held_back if held else record.dropped, [conversation["row"]]
    if e is None:
        dropped.add("unrenderable", source, row)
    elif e.cut and encoder.too_long == "drop":
        dropped.add("over_limit", source, row)
    elif e.n_trained == 0:
        dropped.add("untrained", source, row)
    else:
        if e.cut:
            (record.held_back if held else record.cut).add("over_limit", source, row)
            if held:
                record.eval_lost += e.cut
            else:
                record.lost += e.cut
        return e
    return None


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


def why(record: Recording) -> str:
    """What was dropped, in words, for a set of which nothing is left."""
    told = ", ".join(f"{kind}: {what['count']}" for kind, what in record.dropped.told().items())
    return f"Dropped were {told}. Raise max_length, or look at the problems of the data." if told else "The data is empty."
