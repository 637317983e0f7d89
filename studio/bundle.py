"""What is sent to another computer for a run: its order with the files it names, and how long the run will take there."""

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
    """The box's files: order.yaml, changes.json, and under files/ what the order names on this computer (as hard links or copies)."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    plain = run.config.model_dump(mode="json", exclude_unset=True)
    plain.pop("place", None)
    plain["model"] = run.config.model.model_dump(mode="json", exclude_none=True)
    sources = [{**item.model_dump(), "source": _packed(item.source, folder)} for item in run.config.data.sources()]
    plain["data"]["train"] = sources[0]["source"] if isinstance(plain["data"]["train"], str) else sources
    if isinstance(plain["data"].get("eval"), str):
        plain["data"]["eval"] = _packed(plain["data"]["eval"], folder)
    if run.config.model.kind in ("folder", "gguf"):
        plain["model"]["source"] = _packed(plain["model"]["source"], folder)
    plain["name"] = run.id
    (folder / "order.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    (folder / "changes.json").write_text(json.dumps(run.changes()))


def _packed(source: str, folder: Path) -> str:
    """A file or folder of this computer into files/; a name of the Hub or a sample stays as it is."""
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
    """How long the run will take there, as far as that can be told from here: without the model's tokenizer every row counts as long."""
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
