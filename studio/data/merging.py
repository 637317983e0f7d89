"""Joins the shards of a source to one data set, and finds its duplicate rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from studio.data import store
from studio.data.chunk import normalized_hash
from studio.data.dataset import Conversations
from studio.data.dataset_info import notes_of
from studio.data.examples import contradictions
from studio.data.mapping_hints import suggest_mapping
from studio.data.problem import KINDS, MAX_DETAILED_PER_KIND, Problem, problem
from studio.data.repeats import repeated
from studio.data.shard import Shard
from studio.data.source_reader import Preview, SourceReader, no_rows_error

# where more than STYLE_SHARE of the answers have one of these kinds, it is the style of the data and no problem
STYLE_KINDS = ("unfinished", "too_short")
STYLE_SHARE = 0.3
CONTRADICTING = {  # format -> kind of problem, what is said of the earlier row
    "preference": ("swapped_sides", "The same two answers stand the other way round in row {}."),
    "kto": ("both_verdicts", "The same answer has the opposite verdict in row {}."),
}
NEAR_DUPLICATE_REASON = "But for case, spaces and punctuation the same stands in row {}."


def merge(reader: SourceReader, first: Preview, shards: list[Shard], folder: Path) -> None:
    """Join the shards, find duplicates over all of them, and write the data set."""
    problems: list[Problem] = []
    rows: dict[str, list[np.ndarray]] = {}
    files: list[tuple[str, int, int]] = []
    first_row = first_line = 0
    for n, shard in enumerate(shards):
        name = f"data-{n:05}-of-{len(shards):05}.arrow"
        (folder / shard.file).rename(folder / name)
        files.append((name, first_row, first_line))
        problems += [_from_file_start(p, first_row, first_line) for p in shard.problems]
        for kind, numbers in shard.by_kind.items():
            rows.setdefault(kind, []).append(np.frombuffer(numbers, np.int64) + first_row)
        first_row, first_line = first_row + shard.rows, first_line + shard.lines
    by_kind = {kind: np.unique(np.concatenate(parts)) for kind, parts in rows.items()}
    usable = sum(shard.usable for shard in shards)
    if not usable:
        hint = ""
        if problems:
            hint = suggest_mapping(first.rows, problems[0].kind, problems[0].field or "", first.detection.format)
        raise no_rows_error(reader.name, first_row, problems, hint)
    most = dict.fromkeys(STYLE_KINDS, max(STYLE_SHARE * usable, 3))
    most["test_row"] = usable - 1  # of all rows to test with: that is what the file is for
    for kind in [kind for kind, count in most.items() if len(by_kind.get(kind, ())) > count]:
        by_kind.pop(kind)
        problems = [p for p in problems if p.kind != kind]
    hashes = {key: np.concatenate([getattr(shard, key) for shard in shards]) for key in ("exact", "endings")}
    notes = [*reader.files.notes, *(note for shard in shards for note in shard.notes)]
    notes += notes_of(reader.mapping, reader.files.paths)
    encoding = reader.containers[0].encoding
    metadata = {
        "format": first.detection.format,
        "container": reader.container,
        "rows": first_row,
        "fingerprint": reader.fingerprint,
        "columns": first.columns,
        "reason": first.detection.reason,
        "unsure": first.detection.unsure,
        "files": files,
        "kept": usable,
        "unused": first.unused,
        "notes": list(dict.fromkeys(notes)),
        "encoding": encoding,
    }
    if not encoding.startswith("utf-"):
        reason = f"The file is not written in UTF-8: it was read as {encoding}."
        problems.append(problem("legacy_encoding", 1, 1, None, encoding, reason))
        by_kind["legacy_encoding"] = np.array([1])
    repeat_problems, repeat_rows = _repeats(store.Parts(folder, files), hashes["exact"], hashes["endings"])
    if first.detection.format in CONTRADICTING:
        problems += _contradicting(
            Conversations(store.Parts(folder, files).table), by_kind, *CONTRADICTING[first.detection.format]
        )
    problems = sorted([*problems, *repeat_problems], key=lambda p: (p.row, list(KINDS).index(p.kind)))
    store.write(folder, metadata, problems, by_kind | repeat_rows, hashes)


def _from_file_start(p: Problem, rows: int, lines: int) -> Problem:
    """The problem of a shard, with row and line counted from the beginning of the file."""
    if not rows:
        return p
    line = None if p.line is None else p.line + lines
    reason = p.reason.replace(f"Line {p.line} ", f"Line {line} ") if p.line else p.reason
    return Problem(p.row + rows, line, p.field, p.kind, p.severity, p.value, reason, p.hint)


def _repeats(parts: store.Parts, exact: np.ndarray, endings: np.ndarray) -> tuple[list[Problem], dict[str, np.ndarray]]:
    """(problems, rows by kind) of exact duplicates and of near duplicates over the whole data set."""
    conversations, problems, rows = Conversations(parts.table), [], {}
    numbers, duplicates = conversations.row_numbers, list(repeated(exact))
    exact_duplicates = {index for index, _ in duplicates}
    near = [pair for pair in _near(conversations, exact, endings, parts.forget) if pair[0] not in exact_duplicates]
    for kind, pairs, words in (
        ("duplicate", duplicates, "The same stands in row {}."),
        ("near_duplicate", near, NEAR_DUPLICATE_REASON),
    ):
        if pairs:
            rows[kind] = numbers[[index for index, _ in pairs]]
        for index, earlier in pairs[:MAX_DETAILED_PER_KIND]:
            conversation = conversations[index]
            value = conversation.get("text") or conversation["messages"][0]["content"]
            problems.append(
                problem(kind, conversation["row"], conversation["line"], None, value, words.format(numbers[earlier]))
            )
    return problems, rows


def _contradicting(
    conversations: Conversations, by_kind: dict[str, np.ndarray], kind: str, words: str
) -> list[Problem]:
    """The problems of rows that an earlier row contradicts, added to `by_kind`. words: with {} for its number."""
    problems, numbers = [], conversations.row_numbers
    for index, earlier in contradictions(conversations):
        row = conversations[index]
        field, value = ("rejected", row["rejected"]) if "rejected" in row else ("label", row["messages"][-1]["content"])
        problems.append(problem(kind, row["row"], row["line"], field, value, words.format(numbers[earlier])))
    if problems:
        rows = np.array([p.row for p in problems], np.int64)
        by_kind[kind] = np.union1d(by_kind.get(kind, rows[:0]), rows)
    return problems[:MAX_DETAILED_PER_KIND]


def _near(
    conversations: Conversations, exact: np.ndarray, endings: np.ndarray, forget: Callable[[], None]
) -> Iterator[tuple[int, int]]:
    """(index, index of an earlier row) of rows with the same text but for case, blanks and punctuation.

    Only rows that begin and end alike are compared; forget() gives back the memory that reading them took.
    """
    pairs = [(later, earlier) for later, earlier in repeated(endings) if exact[later] != exact[earlier]]
    candidates = np.unique(np.array(pairs, np.int64))
    chosen = conversations.take(candidates)
    hashes = np.empty(len(candidates), np.uint64)
    for start in range(0, len(candidates), 100):  # each row may touch many pages
        batch = chosen.batch(start, 100)
        hashes[start : start + len(batch)] = list(map(normalized_hash, batch))
        forget()
    for later, earlier in repeated(hashes):
        yield int(candidates[later]), int(candidates[earlier])
