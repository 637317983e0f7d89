"""A run's checkpoints: complete or absent. No torch.

A checkpoint is written under a temporary name, gets a manifest last, and is renamed into place; what has no sound manifest is
none. Resume takes the newest complete one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.home import sync_folder, write_whole

NEEDED = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
SMALL = 5_000_000  # bytes up to which a file's hash is kept too


def _writing(folder: Path, step: int) -> Path:
    return folder / f".writing-{step}"


@contextmanager
def writing(folder: Path, step: int) -> Iterator[Path]:
    """An empty folder to write checkpoint-STEP under; gone again if the block fails."""
    temporary = _writing(folder, step)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def complete(folder: Path, step: int, fingerprint: str) -> Path:
    """Manifest, fsync, rename: from here on the checkpoint exists. fingerprint: of the order, for resume to compare."""
    inner = _writing(folder, step) / f"checkpoint-{step}"
    files = {}
    for file in sorted(path for path in inner.rglob("*") if path.is_file()):
        _sync(file)
        entry: dict[str, Any] = {"bytes": file.stat().st_size}
        if entry["bytes"] <= SMALL:
            entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        files[str(file.relative_to(inner))] = entry
    missing = [name for name in NEEDED if name not in files]
    if missing:
        raise OSError(f"the checkpoint at step {step} lacks {', '.join(missing)}")
    write_whole(inner / "manifest.json", json.dumps({"step": step, "fingerprint": fingerprint, "files": files}, indent=1))
    target = folder / f"checkpoint-{step}"
    shutil.rmtree(target, ignore_errors=True)
    os.rename(inner, target)
    sync_folder(folder)
    shutil.rmtree(_writing(folder, step), ignore_errors=True)
    return target


def faults(checkpoint: Path) -> list[str]:
    """What is wrong with a checkpoint, in words; empty when it is whole."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text())
    except (OSError, ValueError):
        return ["it has no manifest: it was never completed"]
    found = []
    for name, entry in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            found.append(f"{name} is missing")
        elif file.stat().st_size != entry["bytes"]:
            found.append(f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}")
        elif "sha256" in entry and hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            found.append(f"{name} was changed")
    return found


def steps(folder: Path) -> list[int]:
    """Steps at which something like a checkpoint stands, ascending."""
    names = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    for step in reversed(steps(folder)):
        if not faults(folder / f"checkpoint-{step}"):
            return folder / f"checkpoint-{step}"
    return None


def rotate(folder: Path, keep: int, spare: set[int] = frozenset()) -> None:
    """Delete all but the newest `keep`, and those at the steps in `spare`."""
    for step in steps(folder)[:-keep]:
        if step not in spare:
            shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
