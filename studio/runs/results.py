"""A run's result, complete or absent: it is written beside the old one and takes its place at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio import crash
from studio.home import fsync_path, replace_folder


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


def tidy_result(target: Path) -> None:
    """Clean up after a crash in `replacing`."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        os.rename(old, target)
    for leftover in (old, target.with_name(f".{target.name}.new")):
        shutil.rmtree(leftover, ignore_errors=True)
