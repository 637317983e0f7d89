"""Encoding the rows of a run: what is kept of each source, what is dropped or cut and why, and the record of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studio.data.chunk import normalized_hash
from studio.data.dataset import Conversations, Dataset
from studio.data.encoded import EncodedRows, Writer, open_rows
from studio.data.mixing import sample_indices
from studio.data.order import DataOrder
from studio.data.problem import KINDS
from studio.data.text_split import split_row
from studio.errors import DataError, TemplateError
from studio.tokens import Encoded, Encoder

Report = Callable[[int, int], None]
BATCH = 250  # rows encoded at a time


@dataclass(frozen=True)
class Prepared:
    """train, eval: sequences of {"input_ids", "labels"}. stop: what ends a turn.

    record: {"sources": [{"kept", "weight", "found": {kind: rows}, …}], "dropped": {kind: {"count", "rows"}}, "cut" and "split": the same, "tokens_lost",
    "eval": {…}};
    rows as text, "3, 7-12", with the source in front where there are several.
    statistics: rows, eval_rows, tokens, trained (tokens), max (tokens of the longest row), of the training rows.
    """

    train: Any  # EncodedRows, or ahead.Growing
    eval: EncodedRows
    record: dict[str, Any]
    statistics: dict[str, Any]
    fingerprint: str
    stop: list[str] = field(default_factory=list)


class RowsByKind:
    """Row numbers by kind and source."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[int]]] = {}

    def add(self, kind: str, source: str, rows: Any) -> None:
        if len(rows):
            self.rows.setdefault(kind, {}).setdefault(source, []).extend(map(int, rows))

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {
                "count": sum(map(len, by.values())),
                "rows": "; ".join(f"{s}: {ranges(r)}" if len(by) > 1 else ranges(r) for s, r in by.items()),
            }
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


class SourceSplit(NamedTuple):
    """A source after the decisions on its problems: the rows to train on and those held out of it."""

    dataset: Dataset
    train: Conversations
    held: Conversations


EvalPart = tuple[Dataset, Conversations]


class PreparationRecord:
    """What is dropped and cut on the way, and the tokens lost by it. seed: of the split; decisions: drop, keep or stop by kind of problem."""

    def __init__(self, seed: int, decisions: dict[str, str] | None = None) -> None:
        self.seed, self.decisions = seed, decisions or {}
        self.dropped, self.cut, self.split, self.held_back, self.lost, self.eval_lost = (
            RowsByKind(),
            RowsByKind(),
            RowsByKind(),
            RowsByKind(),
            0,
            0,
        )
        self.available = 0  # rows that could have been held out
        self.left_out, self.reasons = (
            RowsByKind(),
            {},
        )  # what the template has no place for; in words, why rows were dropped


class EncodingJob(NamedTuple):
    """What is encoded, and where to. held: the rows held out, by the data set they are from."""

    order: DataOrder
    drawn: list[SourceSplit]
    held: list[EvalPart]
    encoder: Encoder
    seed: int
    folder: Path
    record: PreparationRecord
    report: Report


def encode(work: EncodingJob) -> None:
    """Write train.arrow, eval.arrow, order.npy and record.json."""
    order, drawn, held, encoder, seed, folder, record, report = work
    total = sum(len(part.train) for part in drawn) + sum(len(part) for _, part in held)
    done, counts = 0, []
    with Writer(folder / "train.arrow") as writer:
        for dataset, train, _ in drawn:
            before = writer.rows
            for batch, encoded in batches(train, encoder):
                made = [
                    rows_of(c, e, work.order, encoder, record, dataset.source)
                    for c, e in zip(batch, encoded, strict=True)
                ]
                writer.add([e for some in made for e in some])
                done += len(batch)
                report(done, total)
            counts.append(writer.rows - before)
        trained = np.array(writer.trained, np.int64)
    if not sum(counts):
        raise DataError("No row is left to train on.", why(record), "data")
    eval_rows = write_eval(work, folder / "eval.arrow")
    report(total, total)
    mixed, at = [], 0
    for n, (source, count) in enumerate(zip(order.sources(), counts, strict=True)):
        mixed.append(at + sample_indices(count, source.weight, seed + n))
        at += count
    chosen = np.concatenate(mixed)
    np.save(folder / "order.npy", chosen)
    write_record(work, counts, open_rows(folder / "train.arrow", chosen), trained[chosen], eval_rows)


def write_eval(work: EncodingJob, file: Path) -> int:
    """Write the rows held out that are not training rows as well; returns how many."""
    with Writer(file) as writer:
        for _, encoded in encode_eval(work.order, work.drawn, work.held, work.encoder, work.record):
            writer.add(encoded)
        return writer.rows


def encode_eval(
    order: DataOrder, drawn: list[SourceSplit], held: list[EvalPart], encoder: Encoder, record: PreparationRecord
) -> Iterator[tuple[list[dict[str, Any]], list[Encoded]]]:
    """(conversations, their Encoded) of what a run measures on, some at a time: the one place that says which rows these are."""
    decision = order.problems.get("leak", "keep" if isinstance(order.eval, str) else "drop")
    for dataset, part in held:
        for batch, encoded in batches(_without_leaks(dataset, part, drawn, decision, record.held_back), encoder):
            made = [
                rows_of(c, e, order, encoder, record, dataset.source, held=True)
                for c, e in zip(batch, encoded, strict=True)
            ]
            yield [c for c, some in zip(batch, made, strict=True) if some], [e for some in made for e in some]


def write_record(work: EncodingJob, counts: list[int], rows: EncodedRows, trained: np.ndarray, eval_rows: int) -> None:
    """The record of what an epoch sees (rows; trained: trained tokens of each) and of what was left out. counts: rows kept of each source."""
    order, drawn, held, _, _, folder, record, _ = work
    sizes = rows.lengths()
    statistics = {
        "rows": len(rows),
        "eval_rows": eval_rows,
        "tokens": int(sizes.sum()),
        "trained": int(trained.sum()),
        "max": int(sizes.max()),
    }
    told = {
        "sources": [
            {"source": part.dataset.source, "format": part.dataset.format, "fingerprint": part.dataset.fingerprint, "rows": part.dataset.rows, "kept": count,
             "weight": source.weight, "found": part.dataset.counts} for part, source, count in zip(drawn, order.sources(), counts, strict=True)
        ],
        "dropped": record.dropped.as_dict(), "cut": record.cut.as_dict(), "split": record.split.as_dict(), "tokens_lost": record.lost,
        "left_out": record.left_out.as_dict(), "reasons": record.reasons,
        "eval": {"source": held[0][0].source if isinstance(order.eval, str) else "a share", "rows": eval_rows,
                 "of": record.available, "dropped": record.held_back.as_dict(),
                 "tokens_lost": record.eval_lost} | ({} if isinstance(order.eval, str) else {"share": order.eval or 0, "seed": record.seed}),
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps({"record": told, "statistics": statistics}), encoding="utf-8")


def batches(conversations: Conversations, encoder: Encoder) -> Any:
    """(conversations, their Encoded or the TemplateError of each) batch by batch."""
    for start in range(0, len(conversations), BATCH):
        batch = conversations.batch(start, BATCH)
        yield batch, encoder.encode_each(batch)


def rows_of(
    conversation: dict[str, Any],
    e: Encoded | TemplateError,
    order: DataOrder,
    encoder: Encoder,
    record: PreparationRecord,
    source: str,
    held: bool = False,
) -> list[Encoded]:
    """What is trained of a row: itself, nothing, or the pieces of a text that is longer than the limit."""
    if isinstance(e, Encoded) and e.overflow and order.too_long == "split" and "text" in conversation:
        if not held:
            record.split.add("split", source, [conversation["row"]])
        whole = encoder.encode(conversation, whole=True)
        return [piece for piece in split_row(whole, order.max_length, order.overlap) if piece.n_trained]
    one = accept_row(conversation, e, encoder, source, record, held)
    return [] if one is None else [one]


def accept_row(
    conversation: dict[str, Any],
    e: Encoded | TemplateError,
    encoder: Encoder,
    source: str,
    record: PreparationRecord,
    held: bool = False,
) -> Encoded | None:
    """The row if it can be trained on; else None, and recorded is why. held: of the rows held out.

    Raises DataError for a row that is longer than the model can read, and where the decision on what the template leaves out is to stop.
    """
    dropped, row = record.held_back if held else record.dropped, [conversation["row"]]
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
            raise DataError(
                f"Row {row[0]} of {source}, and the order says to stop there: {about.reason}",
                about.hint,
                f"data.problems.{unwanted[0]}",
            )
        dropped.add(unwanted[0], source, row)
    else:
        check_context_length(conversation, e, encoder, source)
        for kind in () if held else e.left_out:
            record.left_out.add(kind, source, row)
        if e.overflow:
            (record.held_back if held else record.cut).add("over_limit", source, row)
            if held:
                record.eval_lost += e.overflow
            else:
                record.lost += e.overflow
        return e
    return None


def check_context_length(conversation: dict[str, Any], e: Encoded, encoder: Encoder, source: str) -> None:
    """Raise DataError for a row that is longer than the model can read: it would fail in the middle of the run, or learn nothing there."""
    beyond = encoder.describe_overlong(e)
    if beyond:
        raise DataError(
            f"Row {conversation['row']} of {source}: {beyond}",
            f"Set data.max_length to {encoder.context_limit} or less, or choose a model that reads more.",
            "data.max_length",
        )


def _hashes(of: np.ndarray, dataset: Dataset, conversations: Conversations) -> np.ndarray:
    """Of the hashes of all rows of a dataset those of these rows."""
    return (
        of
        if conversations is dataset.conversations
        else of[np.searchsorted(dataset.conversations.row_numbers, conversations.row_numbers)]
    )


def _leaked(dataset: Dataset, part: Conversations, drawn: list[SourceSplit]) -> np.ndarray:
    """The numbers of the evaluation rows that stand in the training data too, word for word or but for case, blanks and punctuation."""
    same = np.isin(
        _hashes(dataset.exact, dataset, part),
        np.concatenate([_hashes(d.dataset.exact, d.dataset, d.train) for d in drawn]),
    )
    endings, near, known = _hashes(dataset.endings, dataset, part), np.zeros(len(part), bool), set()
    for d in drawn:
        others = _hashes(d.dataset.endings, d.dataset, d.train)
        near |= np.isin(endings, others) & ~same
        known |= set(map(normalized_hash, d.train.take(np.flatnonzero(np.isin(others, endings[near])))))
    found = [one["row"] for one in part.take(np.flatnonzero(near)) if normalized_hash(one) in known]
    return np.union1d(part.row_numbers[same], np.array(found, np.int64))


def _without_leaks(
    dataset: Dataset, part: Conversations, drawn: list[SourceSplit], decision: str, record: RowsByKind
) -> Conversations:
    """The evaluation rows that are not training rows as well; which those were is recorded."""
    rows = _leaked(dataset, part, drawn) if len(part) else part.row_numbers
    if len(rows) and decision == "stop":
        raise DataError(
            f"{len(rows)} rows of {dataset.source} stand in the training data too: rows {ranges(rows.tolist())[:200]}.",
            "Take them out of one of the two.",
            "data.eval",
        )
    record.add("leak" if decision == "drop" else "leak_kept", dataset.source, rows)
    return part.without(set(rows.tolist())) if decision == "drop" else part


def why(record: PreparationRecord) -> str:
    """What was dropped, in words, for a set of which nothing is left."""
    told = ", ".join(f"{kind}: {what['count']}" for kind, what in record.dropped.as_dict().items())
    reason = record.reasons.get("unrenderable")
    hint = reason or "Raise max_length, or look at the problems of the data."
    return f"Dropped were {told}. {hint}" if told else "The data is empty."
