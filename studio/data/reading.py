"""read(): any source as a checked Dataset. The result is stored; the same source is not read again."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from studio.data import store
from studio.data.block import Block
from studio.data.column_names import columns_of, text_paths
from studio.data.dataset import Dataset
from studio.data.dataset_info import resolve_entry
from studio.data.examples import asked_of
from studio.data.files import Files
from studio.data.formats import as_row, formats
from studio.data.hub import is_hub_id, path_of
from studio.data.mapping import normalized_mapping
from studio.data.merging import merge
from studio.data.order import DataOrder
from studio.data.sample import sample_path
from studio.data.shard import read_blocks
from studio.data.source_reader import SAMPLE_ROWS, Preview, SourceReader, preview
from studio.data.threads import group_turns
from studio.errors import DataError, writing_below
from studio.reward import Reward

MAX_PATHS = 40  # paths named of a row
Report = Callable[[int, int], None]
LOOKED_AT = 1000  # rows, for an answer to compare with
PROMPTS = "prompts"  # the format of prompts alone


def read(
    source: str | Path,
    format: str = "auto",
    mapping: dict[str, Any] | None = None,
    report: Report | None = None,
    encoding: str = "auto",
) -> Dataset:
    """Read and check a source: a file, a folder or pattern of shards, a ZIP archive, `sample:NAME`, a Hub data set
    (owner/name, with an optional :split), or an entry of a data set list (dataset_info.json:NAME).

    report(done_bytes, total_bytes) is called during reading, from the calling thread or another.
    encoding: of text files. Raises DataError where the source is missing, empty, not JSON, of unknown columns, or
    without a usable row.
    """
    source, mapping = resolve_entry(str(source), mapping)
    path = locate(source)
    if format != "auto" and format not in formats():
        hint = f"The formats are: auto, {', '.join(formats())}."
        raise DataError(f"There is no format named {format!r}.", hint, "data.format")
    normalized_mapping(mapping)
    with Files(path) as files:
        reader = SourceReader(files, format, mapping, encoding)
        folder = store.folder_of(reader.fingerprint)
        stored = store.undamaged(folder, lambda: store.load(str(source), folder))
        if stored is None:
            draft = store.new_folder()
            try:
                with writing_below(draft):
                    _read_into(draft, reader, report or (lambda done, total: None))
                stored = store.load(str(source), store.publish(draft, reader.fingerprint))
            finally:
                if draft.exists():
                    shutil.rmtree(draft)
        elif report:
            report(reader.total, reader.total)
    return stored


@contextmanager
def open_source(
    source: str | Path, format: str = "auto", mapping: dict[str, Any] | None = None, encoding: str = "auto"
) -> Iterator[tuple[Preview, Iterator[Block]]]:
    """(preview, blocks of raw rows) of a source; rows have the same numbers as in `read`. Raises DataError."""
    source, mapping = resolve_entry(str(source), mapping)
    with Files(locate(source)) as files:
        reader = SourceReader(files, format, mapping, encoding)
        first = preview(reader)
        yield first, reader.blocks() if first.thread is None else group_turns(reader.blocks(), first.thread)


def locate(source: str | Path) -> Path:
    """The file, folder or pattern a source names; a Hub data set is fetched first."""
    text = str(source)
    if text == "sample" or text.startswith("sample:"):
        return sample_path(text)
    path = Path(text).expanduser()
    is_pattern = glob.has_magic(text) and ("/" in text or "." in text) and not is_hub_id(text)
    if path.is_dir() or path.is_file() or is_pattern:
        return path
    if is_hub_id(text):
        return path_of(text)
    if os.path.lexists(path):  # a pipe, a device, a socket, or a link to nothing
        message = f"{text[:200]!r} is no file with rows: it is a pipe, a device, or a link that leads nowhere."
        hint = "Name a plain file or a folder; what a program prints is read from a file that it is written to first."
        raise DataError(message, hint, "data.train")
    hint = "Check the path; a Hub data set is written owner/name, with :split if need be."
    raise DataError(f"There is no file {text!r}.", hint, "data.train")


def read_eval(order: DataOrder) -> Dataset | None:
    """The file that an order measures on; None where a share of its sources is held out. Raises DataError."""
    if not isinstance(order.eval, str):
        return None
    kept = order.format if order.format in ("chosen", "good", "prompts", "transcript") else "auto"
    with _of_eval():
        return read_for(order.model_copy(update={"format": kept}), order.eval)


@contextmanager
def _of_eval() -> Iterator[None]:
    """Context in which the evaluation file is read: an error names its key."""
    try:
        yield
    except DataError as error:
        error.where = "data.eval" if error.where == "data.train" else error.where
        raise


def check_found(order: DataOrder) -> None:
    """Raise DataError where a source that the order reads on this computer is not there. Nothing is fetched."""
    for part in order.sources():
        _check_found(part.source)
    if isinstance(order.eval, str):
        with _of_eval():
            _check_found(order.eval)


def _check_found(name: str) -> None:
    source, _ = resolve_entry(name, None)
    if not is_hub_id(source):
        locate(source)


def fingerprints(order: DataOrder) -> list[str]:
    """Of each source as it is now, as its data set carries it. Raises DataError."""
    return [read_for(order, source.source).fingerprint for source in order.sources()]


def _read_into(folder: Path, reader: SourceReader, report: Report) -> None:
    with reader.parallel_readers() as readers:
        first = preview(reader)
        if readers.processes and first.thread is None:
            shards = readers.read(first.detection.format, first.mapping, folder, report)
        else:
            blocks = reader.blocks() if first.thread is None else group_turns(reader.blocks(), first.thread)
            shard = read_blocks(
                blocks,
                first.detection.format,
                first.mapping,
                folder / "part-0.arrow",
                lambda done: report(min(done, reader.total), reader.total),
            )
            shards = [shard]
    merge(reader, first, shards, folder)


def raw_rows(source: str | Path, encoding: str = "auto") -> Iterator[Any]:
    """The rows of a source as they stand there, whatever their layout; None for one that is no data."""
    with Files(locate(source)) as files:
        for block in SourceReader(files, "auto", None, encoding).blocks():
            yield from block.rows


def first_rows(source: str | Path, encoding: str = "auto") -> list[Any]:
    """The first rows of a source as they stand there. Raises DataError where it has none."""
    return list(islice(raw_rows(source, encoding), SAMPLE_ROWS))


def columns(source: str | Path, encoding: str = "auto") -> list[str]:
    """The columns of a file's first rows, and the paths of texts inside them, to be named by hand. Raises DataError."""
    sample = list(map(as_row, first_rows(source, encoding)))
    paths = [path for row in sample[:1] for path in text_paths(row) if "." in path]
    return list(dict.fromkeys([*columns_of(sample), *paths[:MAX_PATHS]]))


def read_for(order: DataOrder, source: str) -> Dataset:
    """A source read as its stage needs it: prompts alone are rows where it writes answers itself. Raises DataError."""
    try:
        dataset = read(source, order.format, order.mapping, encoding=order.encoding)
        if len(dataset.conversations) or not _takes_prompts(order):
            return dataset
    except DataError:
        if not _takes_prompts(order):
            raise
        with suppress(DataError):
            return read(source, PROMPTS, encoding=order.encoding)
        raise
    return read(source, PROMPTS, encoding=order.encoding)


def _takes_prompts(order: DataOrder) -> bool:
    return order.examples == "prompts" and order.format == "auto" and not order.mapping


def check_references(order: DataOrder, rewards: Sequence[Reward]) -> None:
    """Raise DataError where a reward compares with an answer and no row has one that it can compare with."""
    for source in order.sources():
        rows = read_for(order, source.source).conversations.batch(0, LOOKED_AT)
        references = [asked.reference for row in rows if (asked := asked_of(row)) is not None]
        for reward in rewards:
            if any(map(reward.compares_with, references)):
                continue
            raise DataError(
                f"The reward {reward.label} reads a number in the row's own answer, and none of {source.source} has "
                "one."
                if any(map(str.strip, references))
                else f"The reward {reward.label} compares with the row's own answer, and the rows of {source.source} "
                "have none.",
                "Add a column with the right answer, such as reference, or take rewards that need none.",
                "stage.rewards",
            )
