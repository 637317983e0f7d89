"""Data sets from the Hugging Face Hub: owner/name, owner/name:split, owner/name:config:split. Read as Parquet."""

from __future__ import annotations

import re
import time
from pathlib import Path

import xxhash

from studio.base import hub
from studio.errors import DataError, reason_of
from studio.home import slug, subfolder, temporary_path

ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+|[A-Za-z][\w-]{2,})(?::(?P<config>[\w.-]+))??(?::(?P<split>[\w.\[\]%:-]+))?")
REVISION_SECONDS = 600  # seconds before the Hub is asked again whether it holds a newer one
FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet|arrow|txt|gz)$", re.IGNORECASE)


def is_hub_id(text: str) -> bool:
    """owner/name with an optional :split; nothing that looks like a file."""
    match = ID.fullmatch(text)
    return match is not None and "/" in text and not FILE.search(text) and not text.startswith((".", "/"))


def is_local(text: str) -> bool:
    """Whether nothing has to be downloaded for a source: it is no Hub id, or was downloaded before."""
    return not is_hub_id(text) or Path(text).is_file() or _local_file(text).is_file()


def _local_file(text: str) -> Path:
    """The local file of a Hub id. The slug is cut at some length; the hash keeps long names apart."""
    digest = xxhash.xxh32_hexdigest(text.encode())
    return subfolder("uploads") / f"hub-{slug(text.replace('/', '-').replace(':', '-'))}-{digest}.parquet"


def path_of(text: str) -> Path:
    """The split of a Hub data set as a Parquet file among the uploads; fetched again when the Hub has a newer revision.

    Raises DataError with the Hub's answer. Without a network, an earlier copy is used.
    """
    match = ID.fullmatch(text)
    repo, config, split = match["repo"], match["config"], match["split"] or "train"
    local = _local_file(text)
    revision_file = local.with_suffix(".revision")
    revision = _revision(repo, revision_file) if local.is_file() else None
    if local.is_file() and (
        revision is None or (revision_file.is_file() and revision_file.read_text(encoding="utf-8") == revision)
    ):
        revision_file.touch()
        return local
    from datasets import load_dataset  # late: half a second, and only where something is fetched
    from huggingface_hub import constants

    why = hub.unreachable()  # the client's own retries take minutes
    if why and not constants.HF_HUB_OFFLINE:
        hint = "Check the path and the network (HF_ENDPOINT)."
        raise DataError(f"{text!r} is no file here, and the Hub could not be reached ({why}).", hint, "data.train")
    revision = revision or _revision(repo)
    try:
        dataset = load_dataset(repo, config, split=split, revision=revision)
    except (*hub.errors(), ValueError, RuntimeError) as error:
        message = f"{text!r} is no file here, and the Hub could not give a data set of that name: {reason_of(error)}"
        hint = "Check the spelling, the split and the network; a private data set needs HF_TOKEN."
        raise DataError(message, hint, "data.train") from error
    temporary = temporary_path(local)
    dataset.to_parquet(str(temporary))
    temporary.replace(local)
    revision_file.write_text(revision or "", encoding="utf-8")
    return local


def _revision(repo: str, revision_file: Path | None = None) -> str | None:
    """The Hub's newest revision of a data set; None where it cannot be asked, or was asked within REVISION_SECONDS."""
    if (
        revision_file is not None
        and revision_file.is_file()
        and time.time() - revision_file.stat().st_mtime < REVISION_SECONDS
    ):
        return None
    from huggingface_hub import HfApi, constants  # late, as above

    if constants.HF_HUB_OFFLINE or hub.unreachable():
        return None
    try:
        return HfApi().dataset_info(repo, timeout=10).sha
    except (*hub.errors(), ValueError, RuntimeError):  # fetching it says why
        return None
