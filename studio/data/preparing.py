"""prepare: from the order to encoded rows, with the record of what was dropped or cut. What the trainer calls.

Kept on disk under a fingerprint of data, decisions, template, tokenizer, length, what is trained on, and seed: the same
order again is opened, not encoded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from studio import process, template_check
from studio.data import store
from studio.data import streaming as large
from studio.data.dataset import Dataset, is_text_beside
from studio.data.encoded import open_rows
from studio.data.encoding import EncodingJob, EvalPart, Prepared, Report, batches, encode, encode_eval, training_rows
from studio.data.examples import refuse_other_examples
from studio.data.order import DataOrder
from studio.data.reading import read_eval, read_for
from studio.data.record import PreparationRecord
from studio.data.splitting import SourceSplit, num_held_out, prompt_groups, split
from studio.errors import StudioError
from studio.events import Lock
from studio.tokens import Encoded, Encoder

VERSION = 6  # of what is stored; raise it when ids or labels come out otherwise
CHECKED_ROWS = 50  # rows that the template is checked with


def prepare(
    order: DataOrder,
    encoder: Encoder,
    seed: int = 42,
    report: Report | None = None,
    ahead: bool = False,
    draft: Path | None = None,
) -> Prepared:
    """Read, decide, split, encode, mix. report(rows done, rows in all).

    ahead: a large set is returned while its later rows are still being encoded (streaming.py).
    draft: where they are written meanwhile.
    Raises DataError or TemplateError before anything would be trained wrongly.
    """
    datasets, own = _datasets(order)
    key = _fingerprint(order, [*datasets, *([own] if own else [])], encoder, seed)
    folder = store.folder_of(f"encoded-{key}")
    stored = store.undamaged(folder, lambda: _open(folder, key))
    if stored is None:
        record = PreparationRecord(seed, order.problems)
        splits, eval_parts = _split_sources(order, datasets, own, seed, record)
        counts = [len(part.train) for part in splits]
        for part in splits:
            step = max(1, len(part.train) // CHECKED_ROWS)
            checked = order.examples != "prompts" and not is_text_beside(part.dataset, datasets)
            rows = range(0, len(part.train), step) if checked else ()
            template_check.check(encoder, [part.train[n] for n in rows][:CHECKED_ROWS])
        parted = order.too_long == "split"  # then it is not known before how many rows there are
        if ahead and sum(counts) >= large.LARGE and not parted and order.examples == "answers":
            return large.start_streaming(order, encoder, seed, key, counts, record.available)
        scratch = store.new_folder(draft)
        try:
            report = report or (lambda done, total: None)
            job = EncodingJob(order, splits, eval_parts, encoder, seed, scratch, record, report)
            (large.encode if sum(counts) >= large.LARGE and not parted else encode)(job)
            stored = _open(store.publish(scratch, folder.name), key)
        finally:
            if scratch.exists():
                shutil.rmtree(scratch)
    return stored


def _open(folder: Path, key: str) -> Prepared:
    """What `prepare` has stored in a folder."""
    about = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    mixed = np.load(folder / "order.npy")
    train = (
        open_rows(folder / "train.arrow", mixed) if (folder / "train.arrow").is_file() else large.parts(folder, mixed)
    )
    return Prepared(train, open_rows(folder / "eval.arrow"), about["record"], about["statistics"], key)


def held_out(order: DataOrder, encoder: Encoder, seed: int = 42, most: int | None = None) -> list[dict[str, Any]]:
    """The conversations that a run of this order measures on: those of Prepared.eval, row by row; the first `most`."""
    record = PreparationRecord(seed, order.problems)
    splits, eval_parts = _split_sources(order, *_datasets(order), seed, record)
    batches = encode_eval(order, splits, eval_parts, encoder, record)
    return list(islice((conversation for batch, _ in batches for conversation in batch), most))


def trained_on(order: DataOrder, seed: int = 42, count: int = 20) -> list[dict[str, Any]]:
    """Some of the conversations that a run of this order is trained on."""
    splits, _ = _split_sources(order, *_datasets(order), seed, PreparationRecord(seed))
    return [row for part in splits for row in part.train[:count]][:count]


def training_examples(
    order: DataOrder, encoder: Encoder, seed: int = 42
) -> Iterator[tuple[Dataset, dict[str, Any], list[Encoded]]]:
    """(data set, conversation, its encoded rows) of what a run of this order is trained on, each conversation once."""
    record = PreparationRecord(seed, order.problems)
    splits, _ = _split_sources(order, *_datasets(order), seed, record)
    for part in splits:
        for conversations, encoded in batches(part.train, encoder, order.examples):
            for conversation, result in zip(conversations, encoded, strict=True):
                rows = training_rows(conversation, result, order, encoder, record, part.dataset.source)
                if rows:
                    yield part.dataset, conversation, rows


def _datasets(order: DataOrder) -> tuple[list[Dataset], Dataset | None]:
    """The order's sources, and its evaluation file where it has one. Raises DataError for what cannot be trained on."""
    datasets = [read_for(order, source.source) for source in order.sources()]
    own = read_eval(order)
    for dataset in [*datasets, *([own] if own else [])]:
        refuse_other_examples(dataset, order.examples)
    return datasets, own


def _fingerprint(order: DataOrder, datasets: list[Dataset], encoder: Encoder, seed: int) -> str:
    tokenizer = hashlib.sha256((encoder.tokenizer_folder / "tokenizer.json").read_bytes()).hexdigest()
    inputs = [
        VERSION,
        [dataset.fingerprint for dataset in datasets],
        [(source.source, source.weight) for source in order.sources()],  # the record names the sources
        *(order.eval, order.eval_rows, order.problems, encoder.template.text, encoder.template.special),
        *(encoder.max_length, encoder.too_long, order.overlap, encoder.train_on, encoder.reasoning, encoder.bos),
        *(encoder.num_embeddings, encoder.context_limit, seed, tokenizer),
        *([] if order.examples == "answers" else [order.examples, "by prompt"]),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _split_sources(
    order: DataOrder, datasets: list[Dataset], own: Dataset | None, seed: int, record: PreparationRecord
) -> tuple[list[SourceSplit], list[EvalPart]]:
    """Each source after the decisions on its problems, and what is held out."""
    chosen, splits = [], []
    for dataset in datasets:
        selection = dataset.decide(order.problems)
        for kind, rows in selection.dropped.items():
            record.dropped.add(kind, dataset.source, rows)
        chosen.append(selection.conversations)
    share = float(order.eval) if isinstance(order.eval, (int, float)) else 0.0
    counts = [num_held_out(len(conversations), share) for conversations in chosen]
    record.available = sum(counts)
    for dataset, conversations, count in zip(datasets, chosen, counts, strict=True):
        most = count if record.available <= order.eval_rows else round(count * order.eval_rows / record.available)
        groups = None if order.examples == "answers" else prompt_groups(conversations)
        splits.append(SourceSplit(dataset, *split(conversations, share, seed, most, groups)))
    if own is None:
        return splits, [(part.dataset, part.eval) for part in splits]
    selection = own.decide(order.problems)
    for kind, rows in selection.dropped.items():
        record.eval_dropped.add(kind, own.source, rows)
    record.available = len(selection.conversations)
    if record.available > order.eval_rows:
        _, measured = split(selection.conversations, order.eval_rows / record.available, seed, order.eval_rows)
        return splits, [(own, measured)]
    return splits, [(own, selection.conversations)]


def main(job: dict[str, Any]) -> None:
    """Encode a large set beside its trainer, unless another process of the run does. A failure is written down."""
    process.die_with_parent(job["parent"])
    os.nice(10)  # the trainer and the page come first
    key, order, folder = job["key"], DataOrder.model_validate(job["order"]), Path(job["model"])
    draft = store.folder_of(f".ahead-{key}")
    lock, failed = Lock(draft.with_suffix(".lock")), draft.with_suffix(".failed")
    if not lock.acquire():
        return
    try:
        failed.unlink(missing_ok=True)
        encoder = Encoder.from_order(order, folder)
        encoder.context_limit = job["context"]
        prepare(order, encoder, job["seed"], draft=draft)
    except StudioError as error:
        failed.write_text(json.dumps(error.as_dict()))
        raise SystemExit(1) from error
    finally:
        lock.release()


if __name__ == "__main__":
    main(json.load(sys.stdin))
