"""A run's checkpoints: complete or absent. No torch.

A checkpoint is written under a temporary name, looked through, gets a manifest last, and is renamed into place; what has no sound
manifest is none. Older ones go only then. Resume takes the newest complete one, by path.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio import crash
from studio.errors import RunError
from studio.home import fsync_path, write_atomic

NEEDED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")  # and a random state for each process, and weights
WEIGHTS = (".safetensors", ".bin", ".distcp")
SMALL = 5_000_000  # bytes up to which a file's hash is kept too
LOW = int(os.environ.get("STUDIO_DISK_LOW", 300_000_000))  # bytes that must stay free beyond a checkpoint's own size
FULL_DISK_WORDS = (
    "No space left",
    "os error 28",
    "Disk quota exceeded",
    "enforce fail at inline_container",
    "PytorchStreamWriter failed",
)
MANIFEST, BROKEN = "manifest.json", "broken"


# -- writing


def _writing(folder: Path, step: int) -> Path:
    return folder / f".writing-{step}"


@contextmanager
def writing(folder: Path, step: int) -> Iterator[Path]:
    """An empty folder to write checkpoint-STEP under; gone again if the block fails.

    Raises OSError (disk full) before anything is written when too little room is left for one more.
    """
    temporary = _writing(folder, step)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _refuse_when_low(folder)
        crash.point("checkpoint.begun")
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _refuse_when_low(folder: Path) -> None:
    free, last = shutil.disk_usage(folder).free, newest(folder)
    need = LOW + (sum(entry["bytes"] for entry in _manifest(last)["files"].values()) if last else 0)
    if free < need:
        raise OSError(
            errno.ENOSPC,
            f"No space left on device for a checkpoint: {free // 10**6} MB are free, {need // 10**6} MB are wanted",
        )


def disk_is_full(error: BaseException) -> bool:
    """Whether a failed write means a full disk. torch and safetensors say it in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return any(words in text for words in FULL_DISK_WORDS)


def complete(folder: Path, step: int, fingerprint: str) -> Path:
    """Look through, manifest, fsync, rename: from here on the checkpoint exists. fingerprint: of the data, for resume to compare.

    Raises OSError when the folder lacks a file that a resume needs, or one is cut; nothing stands there then.
    """
    inner = _writing(folder, step) / f"checkpoint-{step}"
    crash.point("checkpoint.written")
    try:
        files = _files(inner)
        _refuse_unsound(inner, step, files)
        write_atomic(
            inner / MANIFEST,
            json.dumps({"step": step, "fingerprint": fingerprint, "versions": versions(), "files": files}, indent=1),
        )
    except BaseException:
        shutil.rmtree(_writing(folder, step), ignore_errors=True)
        raise
    crash.point("checkpoint.manifest")
    target, old = folder / f"checkpoint-{step}", folder / f".old-{step}"
    if target.exists():  # written again, after a resume: the first is kept until the second stands
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        crash.point("checkpoint.aside")
    os.rename(inner, target)
    fsync_path(folder)
    crash.point("checkpoint.renamed")
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(_writing(folder, step), ignore_errors=True)
    return target


def _files(inner: Path) -> dict[str, dict[str, Any]]:
    """Name -> bytes, and the hash of small ones; each file and folder is on the disk afterwards."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(inner.rglob("*")):
        fsync_path(path)  # an fsync of whatever it is
        if path.is_file():
            entry: dict[str, Any] = {"bytes": path.stat().st_size}
            if entry["bytes"] <= SMALL:
                entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            files[str(path.relative_to(inner))] = entry
    return files


def _refuse_unsound(inner: Path, step: int, files: dict[str, Any]) -> None:
    missing = [name for name in NEEDED if name not in files]
    if not any(name.startswith("rng_state") for name in files):
        missing.append("rng_state.pth")
    if not any(name.endswith(WEIGHTS) for name in files):
        missing.append("weights")
    cut = [name for name in files if not _whole(inner / name)]
    if missing or cut:
        raise OSError(
            f"the checkpoint at step {step} "
            + "; ".join(
                filter(
                    None, (missing and f"lacks {', '.join(missing)}", cut and f"has damaged files: {', '.join(cut)}")
                )
            )
        )
    state = json.loads((inner / "trainer_state.json").read_text())
    if state.get("global_step") != step:
        raise OSError(f"the checkpoint at step {step} holds the state of step {state.get('global_step')}")


def _whole(file: Path) -> bool:
    """Whether a file is what its ending says, as far as its frame tells: torch's zip has its directory at the end, safetensors its length in front."""
    if file.suffix in (".pt", ".pth"):
        return zipfile.is_zipfile(file)
    if file.suffix == ".safetensors":
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size = file.stat().st_size
            header = json.loads(opened.read(length)) if 0 < length <= size - 8 else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return size == 8 + length + max(ends, default=0)
    return True


def rotate(folder: Path, keep: int, spare: set[int] = frozenset()) -> None:
    """Delete all but the newest `keep`, and those at the steps in `spare`."""
    for step in steps(folder)[:-keep]:
        if step not in spare:
            _remove(folder, f"checkpoint-{step}")
            crash.point("checkpoint.rotated")


def _remove(folder: Path, name: str) -> None:
    """Renamed first: a half deleted checkpoint is never seen."""
    grave = folder / f".old-{name.rpartition('-')[2]}.deleted"
    shutil.rmtree(grave, ignore_errors=True)
    os.rename(folder / name, grave)
    shutil.rmtree(grave, ignore_errors=True)


# -- reading


def _manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text())


def faults(checkpoint: Path) -> list[str]:
    """What is wrong with a checkpoint, in words; empty when it is whole."""
    try:
        files = dict(_manifest(checkpoint)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return ["it has no manifest: it was never completed"]
    found = []
    for name, entry in files.items():
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


# -- before an attempt


def tidy(folder: Path) -> list[str]:
    """Remove what a crash left half written, move broken checkpoints to broken/; returns what was moved and why, in words."""
    if not folder.is_dir():
        return []
    for path in folder.glob(".*"):
        step = path.name.removeprefix(".old-")
        if step.isdigit() and not (folder / f"checkpoint-{step}").exists():
            os.rename(
                path, folder / f"checkpoint-{step}"
            )  # the crash came between taking it aside and the new one's arrival
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    told = []
    for step in steps(folder):
        found = faults(folder / f"checkpoint-{step}")
        if found:
            place = folder / BROKEN / f"checkpoint-{step}"
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            os.rename(folder / f"checkpoint-{step}", place)
            told.append(
                f"The checkpoint at step {step} is damaged ({'; '.join(found[:3])}); it was moved to checkpoints/{BROKEN}."
            )
    return told


def refuse_other_data(checkpoint: Path, fingerprint: str) -> None:
    """For the trainer, before it loads a checkpoint: raise RunError when the data is not what it was trained on so far."""
    before = _manifest(checkpoint)["fingerprint"]
    if before != fingerprint:
        raise RunError(
            "The rows to train on are not those the checkpoint was made with: the data file has changed, or how it is read.",
            "Put the old file back to resume, or start a new run with the new one.",
            "data.train",
        )


def versions() -> dict[str, str]:
    """The libraries that wrote a checkpoint."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# -- the result


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when the block ends: the old result stands until the new one is whole."""
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
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        crash.point("result.aside")
    os.rename(new, target)
    fsync_path(target.parent)
    crash.point("result.renamed")
    shutil.rmtree(old, ignore_errors=True)


def tidy_result(target: Path) -> None:
    """Undo what a crash in `replacing` left."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        os.rename(old, target)
    for rest in (old, target.with_name(f".{target.name}.new")):
        shutil.rmtree(rest, ignore_errors=True)
