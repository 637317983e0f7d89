"""Which files an order may name.

A page on this computer without a login serves its user, who may name any file. Every other page allows only the
studio's own: uploads and samples as data, models and results as models, and no link that leads out of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio import config, data
from studio.base import source
from studio.base.source import ModelOrder
from studio.config import RunConfig
from studio.data import dataset_info, hub
from studio.errors import OrderError, StudioError
from studio.home import home, subfolder
from studio.ui import live, who

PUBLIC = "STUDIO_PUBLIC"  # set in the environment of a page that others can reach
MODELS = ("models", "exports", "uploads")  # rooms of the home that may hold a model, beside the results of runs
SUGGESTED = (
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen3-0.6B",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
)
MAX_TEXT_CHARS = 200_000  # characters of an order or a prompt
HINT = "On a page with a login, or that others can reach, use an upload, a sample or a Hub id."


def text_of(value: Any, where: str) -> str:
    """A text from outside, of a bounded length. Raises OrderError."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT_CHARS or "\0" in value:
        raise OrderError(f"{where} should be text, at most {MAX_TEXT_CHARS} characters.", "", where)
    return value


def order_of(text: Any) -> RunConfig:
    """An order from outside, as YAML, with all its paths allowed. Raises OrderError."""
    order = config.parse(text_of(text, "order"))
    allow(order)
    return order


def data_of(order: RunConfig) -> list[str]:
    """The data that an order names, as it names them."""
    held_out = [order.data.eval] if isinstance(order.data.eval, str) else []
    return [one.source for one in order.data.sources()] + held_out


def paths_of(order: RunConfig) -> Iterator[Path]:
    """What an order's data are read from: of an entry of a dataset_info.json the list and the file that it names."""
    for text in data_of(order):
        listed, _, entry = text.rpartition(":")
        yield Path(listed if entry and Path(listed).name == dataset_info.INFO_FILE else text)
        with contextlib.suppress(StudioError):  # that list is gone, or damaged
            yield Path(dataset_info.resolve_entry(text, None)[0])


def allow(order: RunConfig) -> None:
    """Refuse an order that names files it may not, or a download for somebody who only looks. Raises OrderError."""
    named = data_of(order)
    for text in named:
        allow_data(text)
    if restricted() and not _is_model(order.model):
        raise OrderError(f"{order.model.source[:300]} lies outside the studio's folders.", HINT, "model")
    for reward in getattr(order.stage, "rewards", ()):
        if reward.code and restricted():
            raise OrderError(
                f"The reward {reward.name} runs a program of this computer, which a page with a login, or that others "
                "can reach, does not.",
                "Take other rewards, or start the run in a terminal: python -m studio train ORDER.yaml.",
                "stage.rewards",
            )
        if reward.address and not who.owns():
            raise OrderError("Only the owner names the address of a judge.", "Take other rewards.", "stage.rewards")
    if not who.owns():
        for text in named:
            if not data.is_local(text):
                raise OrderError(f"{text} is not in this studio yet.", "Only the owner may fetch it.", "data.train")
        if order.model.kind == "hub" and order.model.source not in SUGGESTED and source.local(order.model) is None:
            hint = "Only the owner may fetch it."
            raise OrderError(f"{order.model.source} is not in this studio yet.", hint, "model")


def allow_data(text: str) -> None:
    """Refuse data that lies outside the studio's folders, where files are restricted. Raises OrderError."""
    if restricted() and not _is_data(text):
        raise OrderError(f"{text[:300]} lies outside the studio's folders.", HINT, "data.train")


def allow_model(name: str) -> None:
    """Refuse to load what is no base or run of this studio, where files are restricted. Raises RunError."""
    if restricted() and name != "base":
        live.get_run(name.removeprefix("base:").partition("@")[0])


def restricted() -> bool:
    """Whether only the studio's own files may be named: there is a login, others can reach it, or no owner asks."""
    return bool(os.environ.get(PUBLIC)) or who.guarded.get() or not who.owns()


def is_upload(path: Path) -> bool:
    """Whether a path is a file among the uploads, after every link was followed."""
    try:
        found = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # not there; a null byte in it; links in a circle
        return False
    return found.is_file() and found.is_relative_to((home() / "uploads").resolve()) and not found.name.startswith(".")


def uploads() -> Iterator[Path]:
    """Files among the uploads, the newest first; each is looked at when it is taken, for there may be thousands."""
    changed: dict[Path, int] = {}
    for entry in os.scandir(subfolder("uploads")):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            changed[Path(entry.path)] = entry.stat(follow_symlinks=False).st_mtime_ns
    return filter(is_upload, sorted(changed, key=changed.__getitem__, reverse=True))


def _is_data(text: str) -> bool:
    """A sample, an upload, or a Hub id that is no file here."""
    if text == "sample" or text.startswith("sample:"):
        return True
    listed, _, entry = text.rpartition(":")
    if entry and Path(listed).name == dataset_info.INFO_FILE:  # a list of data sets, which names the file itself
        return is_upload(Path(listed)) and is_upload(Path(dataset_info.resolve_entry(text, None)[0]))
    path = Path(text).expanduser()
    return is_upload(path) or (hub.is_hub_id(text) and not os.path.lexists(path))


def _is_model(order: ModelOrder) -> bool:
    """The starter, a Hub id, a model in the home or the result of a run; with no link out of those in it."""
    if order.kind in ("starter", "hub"):
        return True
    try:
        path = Path(order.source).expanduser().resolve(strict=True)
        return _in_models(path) and (
            path.is_file() or all(_in_models(file.resolve(strict=True)) for file in path.iterdir())
        )
    except (OSError, ValueError, RuntimeError):
        return False


def _in_models(path: Path) -> bool:
    runs = (home() / "runs").resolve()
    if path.is_relative_to(runs):
        return path.relative_to(runs).parts[1:2] == ("model",)
    return any(path != (folder := (home() / name).resolve()) and path.is_relative_to(folder) for name in MODELS)
