"""The bundle sent to another computer for a run: its order and files, and the expected duration there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import yaml

from studio import data, estimate, model, places
from studio.base import source
from studio.errors import StudioError
from studio.run import Run
from studio.tokens import Encoder


def pack(run: Run, folder: Path) -> None:
    """Write order.yaml, changes.json and, under files/, hard links or copies of local files that the order names."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    plain = run.config.model_dump(mode="json", exclude_unset=True)
    plain.pop("place", None)
    plain["model"] = run.config.model.model_dump(mode="json", exclude_none=True)
    sources = [{**item.model_dump(), "source": _copy_source(item.source, folder)} for item in run.config.data.sources()]
    plain["data"]["train"] = sources[0]["source"] if isinstance(plain["data"]["train"], str) else sources
    if isinstance(plain["data"].get("eval"), str):
        plain["data"]["eval"] = _copy_source(plain["data"]["eval"], folder)
    if run.config.model.kind in ("folder", "gguf"):
        plain["model"]["source"] = _copy_source(plain["model"]["source"], folder)
    plain["name"] = run.id
    (folder / "order.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    (folder / "changes.json").write_text(json.dumps(run.changes()))


def _copy_source(source: str, folder: Path) -> str:
    """Copy a local file or folder into files/ and return its new path; a Hub name or a sample is returned unchanged."""
    path = Path(source).expanduser()
    if source.startswith("sample") or not path.exists():
        return source
    number = len(list((folder / "files").iterdir()))
    target = folder / "files" / f"{number}-{path.name}"
    if path.is_dir():
        shutil.copytree(path, target, copy_function=_link)
    else:
        _link(path, target)
    return f"files/{target.name}"


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def seconds(run: Run) -> float | None:
    """Expected seconds of the run at its place, None if unknown. Without the tokenizer rows count as full length."""
    order, rows = run.config, None
    try:
        device, folder = places.device_of(order.place), source.local(order.model)
        if device is None:
            return None
        if folder is not None and (folder / "tokenizer.json").is_file():
            rows = data.prepare(
                order.data,
                Encoder.from_order(order.data, folder, num_virtual_tokens=order.virtual_tokens),
                order.training.seed,
            ).statistics
        return estimate.estimate(model.facts_of(order.model), order, device, rows).seconds
    except StudioError:
        return None  # the order is refused there, with words
