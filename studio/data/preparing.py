"""prepare: from the order to encoded rows, with the record of what was dropped or cut. What the trainer calls.

Kept on disk under a fingerprint of data, decisions, template, tokenizer, length, what is trained on, and seed: the same
order again is opened, not encoded again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from studio.data import ahead as large
from studio.data import store
from studio.data.dataset import Dataset
from studio.data.encoded import open_rows
from studio.data.encoding import Drawn, Held, Prepared, Recording, Report, Work, encode
from studio.data.order import DataOrder
from studio.data.reading import read
from studio.data.splitting import split
from studio.errors import DataError
from studio.home import room
from studio.tokens import Encoder

VERSION = 5  # of what is stored; raise it when ids or labels come out otherwise
GATED = 50  # rows the gate looks at


def prepare(order: DataOrder, encoder: Encoder, seed: int = 42, report: Report | None = None, ahead: bool = False, draft: Path | None = None) -> Prepared:
    """Read, decide, split, encode, mix. report(rows done, rows in all).

    ahead: a large set is given while its later rows are still being encoded (ahead.py); draft: where they are written meanwhile.
    Raises DataError or TemplateError before anything would be trained wrongly.
    """
    datasets = [read(source.source, order.format, order.mapping, encoding=order.encoding) for source in order.sources()]
    own = None
    if isinstance(order.eval, str):
        own = read(order.eval, order.format if order.format == "chosen" else "auto", order.mapping, encoding=order.encoding)
    for dataset in [*datasets, *([own] if own else [])]:
        _usable(dataset)
    key = _key(order, [*datasets, *([own] if own else [])], encoder, seed)
    folder = room("datasets") / f"encoded-{key}"
    if not (folder / "record.json").is_file():
        record = Recording(seed)
        drawn, held = _drawn(order, datasets, own, seed, record)
        counts = [len(part.train) for part in drawn]
        _gate(encoder, drawn)
        parted = order.too_long == "split"  # then it is not known before how many rows there are
        if ahead and sum(counts) >= large.LARGE and not parted:
            return large.beside(order, encoder, seed, key, counts)
        made = store.draft(draft)
        try:
            work = Work(order, drawn, held, encoder, seed, made, record, report or (lambda done, total: None))
            (large.encode if sum(counts) >= large.LARGE and not parted else encode)(work)
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
        VERSION, [d.fingerprint for d in datasets], [(s.source, s.weight) for s in order.sources()], order.eval,  # the record names the sources
        order.problems, encoder.template.text, encoder.template.special, encoder.max_length, encoder.too_long, order.overlap, encoder.train_on, seed, tokenizer,
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


def _gate(encoder: Encoder, drawn: list[Drawn]) -> None:
    for _, train, _ in drawn:
        step = max(1, len(train) // GATED)
        encoder.gate([train[n] for n in range(0, len(train), step)][:GATED])
