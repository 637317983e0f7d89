"""A run's result, complete or absent: it is written beside the old one and takes its place at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio import crash
from studio.base.tensors import header
from studio.errors import ModelError
from studio.home import fsync_path, replace_folder
from studio.runs.folder import Run


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty folder that replaces `target` when the block ends; the old result stays until the new is complete."""
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for path in new.rglob("*"):
        fsync_path(path)
    crash.point("result.written")
    replace_folder(target, new, old, "result")


def check_result(run: Run) -> None:
    """Raise ModelError where a weight file of a run's result breaks off or cannot be read."""
    hint = f"Delete {run.result}, and make it anew of the newest checkpoint: python -m studio finish {run.id}"
    check_whole(run.result, hint)


def check_whole(folder: Path, hint: str) -> None:
    """Raise ModelError, with this hint, for a weight file that breaks off or cannot be read."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            header(file)
        except ModelError as error:
            raise ModelError(error.message, hint, "model") from error


def tidy_result(target: Path) -> None:
    """Clean up after a crash in `replacing`."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        os.rename(old, target)
    for leftover in (old, target.with_name(f".{target.name}.new")):
        shutil.rmtree(leftover, ignore_errors=True)
