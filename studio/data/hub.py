"""Data sets from the Hugging Face Hub: owner/name, owner/name:split, owner/name:config:split. Read as Parquet."""

from __future__ import annotations

import re
from pathlib import Path

from studio.errors import DataError
from studio.home import draft, room, slug

ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+|[A-Za-z][\w-]{2,})(?::(?P<config>[\w.-]+))??(?::(?P<split>[\w.\[\]%:-]+))?")
FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet|arrow|txt|gz)$", re.IGNORECASE)


def is_hub_id(text: str) -> bool:
    """owner/name with an optional :split; nothing that looks like a file."""
    found = ID.fullmatch(text)
    return found is not None and "/" in text and not FILE.search(text) and not text.startswith((".", "/"))


def here(text: str) -> bool:
    """Whether nothing has to be fetched for a source: it is no Hub id, or was fetched before."""
    return not is_hub_id(text) or Path(text).is_file() or _place(text).is_file()


def _place(text: str) -> Path:
    return room("uploads") / f"hub-{slug(text.replace('/', '-').replace(':', '-'))}.parquet"


def path_of(text: str) -> Path:
    """Fetch a Hub data set's split once, as a Parquet file among the uploads. Raises DataError with what the Hub said."""
    from datasets import load_dataset  # late: half a second, and only where the Hub is asked
    from huggingface_hub import constants

    from studio.base.source import unreachable

    found = ID.fullmatch(text)
    repo, config, split = found["repo"], found["config"], found["split"] or "train"
    kept = _place(text)
    if kept.is_file():
        return kept
    why = unreachable()  # the client's own retries take minutes
    if why and not constants.HF_HUB_OFFLINE:
        raise DataError(f"{text!r} is no file here, and the Hub could not be reached ({why}).", "Check the path and the network (HF_ENDPOINT).", "data.train")
    try:
        dataset = load_dataset(repo, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # the Hub's errors and those of the network derive from these
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{text!r} is no file here, and the Hub could not give a data set of that name: {first}",
            "Check the spelling, the split and the network; a private data set needs HF_TOKEN.",
            "data.train",
        ) from error
    temporary = draft(kept)
    dataset.to_parquet(str(temporary))
    temporary.replace(kept)
    return kept
