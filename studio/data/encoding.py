"""Encoding the rows of a run: what is kept of each source, what is dropped or cut and why, and the record of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studio.data.dataset import Conversations, Dataset
from studio.data.encoded import EncodedRows, Writer, open_rows
from studio.data.examples import describe, encode_examples
from studio.data.leaks import without_leaks
from studio.data.order import DataOrder
from studio.data.problem import KINDS
from studio.data.record import PreparationRecord, describe_dropped
from studio.data.splitting import SourceSplit, sample_indices
from studio.data.text_split import split_row
from studio.errors import DataError, TemplateError
from studio.registry import attributes
from studio.tokens import Encoded, Encoder

Report = Callable[[int, int], None]
BATCH = 250  # rows encoded at a time


@dataclass(frozen=True)
class Prepared:
    """train, eval: sequences of {"input_ids", "labels"}.

    record: {"sources": [{"kept", "weight", "found": {kind: rows}, …}], "dropped": {kind: {"count", "rows"}},
    "cut" and "split": as dropped, "tokens_lost", "unseen_tokens" (of data.new_tokens), "eval": {…}}. Rows are text,
    "3, 7-12", after the source where there are several.
    statistics: rows, eval_rows, tokens, trained (tokens), max (tokens of the longest row), of the training rows.
    """

    train: Any  # EncodedRows, or the growing rows of streaming.py
    eval: EncodedRows
    record: dict[str, Any]
    statistics: dict[str, Any]
    fingerprint: str


EvalPart = tuple[Dataset, Conversations]


class EncodingJob(NamedTuple):
    """What is encoded, and where to. eval_parts: the rows held out, by the data set they are from."""

    order: DataOrder
    splits: list[SourceSplit]
    eval_parts: list[EvalPart]
    encoder: Encoder
    seed: int
    folder: Path
    record: PreparationRecord
    report: Report


def encode(job: EncodingJob) -> None:
    """Write train.arrow, eval.arrow, order.npy and record.json."""
    order, encoder, record = job.order, job.encoder, job.record
    total = sum(len(split.train) for split in job.splits) + sum(len(part) for _, part in job.eval_parts)
    done, counts = 0, []
    rows: list[Encoded] = []
    with Writer(job.folder / "train.arrow", order.examples) as writer:
        for dataset, train, _ in job.splits:
            before = writer.rows
            for batch, encoded in batches(train, encoder, order.examples):
                for conversation, result in zip(batch, encoded, strict=True):
                    rows += training_rows(conversation, result, order, encoder, record, dataset.source)
                writer.add(rows)
                rows = []
                done += len(batch)
                job.report(done, total)
            counts.append(writer.rows - before)
        trained = np.array(writer.trained, np.int64)
    if not sum(counts):
        raise DataError("No row is left to train on.", describe_dropped(record), "data")
    eval_rows = write_eval(job, job.folder / "eval.arrow")
    job.report(total, total)
    mixed, offset = [], 0
    for n, (source, count) in enumerate(zip(order.sources(), counts, strict=True)):
        mixed.append(offset + sample_indices(count, source.weight, job.seed + n))
        offset += count
    indices = np.concatenate(mixed)
    if not len(indices):
        left = f"The weights of the data leave none of its {sum(counts)} rows."
        raise DataError(left, "Give more rows, or a larger weight.", "data")
    np.save(job.folder / "order.npy", indices)
    write_record(job, counts, open_rows(job.folder / "train.arrow", indices), trained[indices], eval_rows)


def write_eval(job: EncodingJob, file: Path) -> int:
    """Write the evaluation rows; returns how many."""
    with Writer(file, job.order.examples) as writer:
        for _, encoded in encode_eval(job.order, job.splits, job.eval_parts, job.encoder, job.record):
            writer.add(encoded)
        return writer.rows


def encode_eval(
    order: DataOrder, splits: list[SourceSplit], parts: list[EvalPart], encoder: Encoder, record: PreparationRecord
) -> Iterator[tuple[list[dict[str, Any]], list[Encoded]]]:
    """(conversations, their Encoded) of what a run evaluates on, batch by batch, without rows that are trained on."""
    decision = order.problems.get("leak", "keep" if isinstance(order.eval, str) else "drop")
    for dataset, part in parts:
        unleaked = without_leaks(dataset, part, splits, decision, record.eval_dropped)
        for batch, encoded in batches(unleaked, encoder, order.examples):
            conversations: list[dict[str, Any]] = []
            rows: list[Encoded] = []
            for conversation, result in zip(batch, encoded, strict=True):
                accepted = training_rows(conversation, result, order, encoder, record, dataset.source, for_eval=True)
                conversations += [conversation] if accepted else []
                rows += accepted
            yield conversations, rows


def write_record(job: EncodingJob, counts: list[int], rows: EncodedRows, trained: np.ndarray, eval_rows: int) -> None:
    """Write record.json. counts: rows kept of each source. rows: those of an epoch; trained: tokens of each."""
    order, record = job.order, job.record
    sizes = rows.lengths()
    statistics = {
        "rows": len(rows),
        "eval_rows": eval_rows,
        "tokens": int(sizes.sum()),
        "trained": int(trained.sum()),
        "max": int(sizes.max()),
    }
    sources = [
        {
            **attributes(split.dataset, "source", "format", "fingerprint", "rows"),
            "kept": count,
            "weight": source.weight,
            "found": split.dataset.counts,
            **({"compared": describe(split.dataset)} if order.examples in ("pairs", "verdicts") else {}),
        }
        for split, source, count in zip(job.splits, order.sources(), counts, strict=True)
    ]
    own_file = isinstance(order.eval, str)
    evaluation = {
        "source": job.eval_parts[0][0].source if own_file else "a share",
        "rows": eval_rows,
        "of": record.available,
        "dropped": record.eval_dropped.as_dict(),
        "tokens_lost": record.eval_tokens_lost,
    }
    if not own_file:
        evaluation |= {"share": order.eval or 0, "seed": record.seed}
    summary = {
        "sources": sources,
        **{name: getattr(record, name).as_dict() for name in ("dropped", "cut", "split", "left_out")},
        **attributes(record, "tokens_lost", "reasons"),
        "unseen_tokens": job.encoder.unseen_tokens(rows.ids()) if job.encoder.added else [],
        "eval": evaluation,
    }
    (job.folder / "record.json").write_text(json.dumps({"record": summary, "statistics": statistics}), encoding="utf-8")


def batches(conversations: Conversations, encoder: Encoder, examples: str = "answers") -> Any:
    """(conversations, their Encoded or the TemplateError of each) batch by batch. examples: see DataOrder."""
    for start in range(0, len(conversations), BATCH):
        batch = conversations.batch(start, BATCH)
        yield batch, encode_examples(batch, encoder, examples)


def training_rows(
    conversation: dict[str, Any],
    e: Encoded | TemplateError,
    order: DataOrder,
    encoder: Encoder,
    record: PreparationRecord,
    source: str,
    for_eval: bool = False,
) -> list[Encoded]:
    """The encoded rows of a conversation: itself, none, or the parts of a text that is longer than the limit."""
    if isinstance(e, Encoded) and e.overflow and order.too_long == "split" and "text" in conversation:
        if not for_eval:
            record.split.add("split", source, [conversation["row"]])
        whole = encoder.encode(conversation, whole=True)
        return [part for part in split_row(whole, order.max_length, order.overlap) if part.n_trained]
    row = accept_row(conversation, e, encoder, source, record, for_eval)
    return [] if row is None else [row]


def accept_row(
    conversation: dict[str, Any],
    e: Encoded | TemplateError,
    encoder: Encoder,
    source: str,
    record: PreparationRecord,
    for_eval: bool = False,
) -> Encoded | None:
    """The row if it can be trained on; else None, with the reason in the record.

    Raises DataError for a row that is longer than the model can read, and for a kind of problem whose decision is stop.
    """
    dropped = record.eval_dropped if for_eval else record.dropped
    row = [conversation["row"]]
    if isinstance(e, TemplateError):
        dropped.add("unrenderable", source, row)
        record.reasons.setdefault("unrenderable", f"{e.message} {e.hint}".strip())
    elif e.overflow and encoder.too_long == "drop":
        dropped.add("over_limit", source, row)
    elif e.n_trained == 0:
        dropped.add("untrained", source, row)
    elif unwanted := [kind for kind in e.left_out if record.decisions.get(kind, "keep") != "keep"]:
        if "stop" in map(record.decisions.get, unwanted):
            about = KINDS[unwanted[0]]
            message = f"Row {row[0]} of {source}, and the order says to stop there: {about.reason}"
            raise DataError(message, about.hint, f"data.problems.{unwanted[0]}")
        dropped.add(unwanted[0], source, row)
    else:
        check_context_length(conversation, e, encoder, source)
        for kind in () if for_eval else e.left_out:
            record.left_out.add(kind, source, row)
        if e.overflow:
            if for_eval:
                record.eval_dropped.add("over_limit", source, row)
                record.eval_tokens_lost += e.overflow
            else:
                record.cut.add("over_limit", source, row)
                record.tokens_lost += e.overflow
        return e
    return None


def check_context_length(conversation: dict[str, Any], e: Encoded, encoder: Encoder, source: str) -> None:
    """Raise DataError for a row that is longer than the model can read: the run would fail there, or learn nothing."""
    beyond = encoder.describe_overlong(e)
    if beyond:
        hint = f"Set data.max_length to {encoder.context_limit} or less, or choose a model that reads more."
        raise DataError(f"Row {conversation['row']} of {source}: {beyond}", hint, "data.max_length")
