"""Entries of LLaMA-Factory's dataset_info.json: which data set they name, and what of them is followed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from studio import json_text
from studio.errors import DataError, reason_of

INFO_FILE = "dataset_info.json"
ENTRY_KEYS = {
    *("columns", "tags", "formatting", "file_name", "file_sha1", "folder", "split", "subset", "num_samples", "ranking"),
    *("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "load_from"),
}
MEDIA_COLUMNS = ("images", "videos", "audios")


def is_entry(mapping: dict[str, Any]) -> bool:
    """Whether it is an entry of a dataset_info.json, and no mapping by hand."""
    return any(
        isinstance(mapping.get(key), (dict, str))
        for key in ("columns", "formatting", "tags", "file_name", "hf_hub_url")
    )


def limit_of(mapping: dict[str, Any] | None) -> int | None:
    """num_samples of an entry of dataset_info.json: the number of rows to read."""
    count = mapping.get("num_samples") if mapping and is_entry(mapping) else None
    if count is None:
        return None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise DataError(f"num_samples is {count!r}.", "It must be a whole number from 1 on.", "num_samples")
    return count


def notes_of(mapping: dict[str, Any] | None, files: list[Path]) -> list[str]:
    """Notes on what of an entry of dataset_info.json is not followed, or only in part."""
    if not mapping or not is_entry(mapping):
        return []
    notes, columns = [], mapping.get("columns") or {}
    if count := limit_of(mapping):
        notes.append(f"num_samples is {count}: the first {count} rows are read.")
    if media := [f"{part} ({columns[part]})" for part in MEDIA_COLUMNS if columns.get(part)]:
        notes.append(f"Training is on text alone; the entry's {', '.join(media)} are not used.")
    if (expected := mapping.get("file_sha1")) and len(files) == 1:
        with open(files[0], "rb") as file:
            if hashlib.file_digest(file, "sha1").hexdigest() != expected:
                notes.append("The file is not the one that file_sha1 of its entry names; it was read all the same.")
    return notes


def from_dataset_info(path: Path, name: str) -> tuple[str, dict[str, Any]]:
    """(source, mapping) of one entry of a LLaMA-Factory dataset_info.json. The source is its file or its Hub id."""
    try:
        entries = json_text.read(path.read_text(encoding="utf-8"), path.name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.name} cannot be read as dataset_info.json: {reason_of(error)}.", "Check the file.", path.name
        ) from error
    entry = entries.get(name) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        known = ", ".join(list(entries)[:10]) if isinstance(entries, dict) else ""
        raise DataError(f"{path.name} has no entry named {name!r}.", f"It has: {known}.", path.name)
    if entry.get("file_name"):
        file = path.parent / str(entry["file_name"])
        if not file.resolve().is_relative_to(path.parent.resolve()):
            hint = "Put the file beside it."
            raise DataError(f"The entry {name!r} of {path.name} names a file outside its folder.", hint, path.name)
        return str(file), entry
    if entry.get("hf_hub_url"):
        return f"{entry['hf_hub_url']}:{entry.get('split', 'train')}", entry
    hint = "Give it file_name or hf_hub_url."
    raise DataError(f"The entry {name!r} of {path.name} names neither a file nor a Hub data set.", hint, path.name)


def resolve_entry(source: str, mapping: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """(source, mapping) of FOLDER/dataset_info.json:NAME; a given mapping wins over the entry's. Others unchanged."""
    file, _, name = source.rpartition(":")
    if Path(source).name == INFO_FILE and Path(source).is_file():
        hint = f"Name the one that is meant: {INFO_FILE}:NAME."
        raise DataError(f"{INFO_FILE} lists data sets and is none.", hint, source)
    if not name or Path(file).name != INFO_FILE:
        return source, mapping
    entry_source, entry = from_dataset_info(Path(file), name)
    return entry_source, mapping or entry
