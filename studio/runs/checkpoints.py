"""A run's checkpoints, complete or absent. No torch.

A checkpoint is written under a temporary name, verified, given a manifest last, and renamed into place; older ones are
deleted only then. A folder without a valid manifest is no checkpoint. Resume takes the newest complete one.
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

from studio import crash, program
from studio.base.tensors import header
from studio.errors import ModelError, RunError, is_disk_full
from studio.home import fsync_path, replace_folder, write_atomic

# besides an RNG state for each process, and weights
REQUIRED_FILES = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
WRITERS = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")  # libraries that write a checkpoint
WEIGHTS = (".safetensors", ".bin", ".distcp")
HASHED_UP_TO = 5_000_000  # bytes up to which a file's hash is stored too
# bytes that must stay free beyond a checkpoint's own size
MIN_FREE = int(os.environ.get("STUDIO_DISK_LOW", 300_000_000))
FULL_DISK_WORDS = (
    "No space left",
    "os error 28",
    "Disk quota exceeded",
    "enforce fail at inline_container",
    "PytorchStreamWriter failed",
    "requested and",  # numpy's: 372736 requested and 0 written
)
MANIFEST, BROKEN = "manifest.json", "broken"


# -- writing


def _writing(folder: Path, step: int) -> Path:
    return folder / f".writing-{step}"


@contextmanager
def writing(folder: Path, step: int) -> Iterator[Path]:
    """An empty folder to write checkpoint-STEP in, removed if the block fails.

    Raises OSError (disk full) before anything is written if too little space is left for one more checkpoint.
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
    need = MIN_FREE + (sum(entry["bytes"] for entry in _manifest(last)["files"].values()) if last else 0)
    if free < need:
        message = f"No space left on device for a checkpoint: {free >> 20} MiB are free, {need >> 20} MiB are wanted"
        raise OSError(errno.ENOSPC, message)


def disk_is_full(error: BaseException) -> bool:
    """Whether a failed write means a full disk. torch, safetensors and numpy only say so in the message."""
    return is_disk_full(error) or any(words in str(error) for words in FULL_DISK_WORDS)


def complete(folder: Path, step: int, fingerprint: str) -> Path:
    """Verify the written checkpoint, add its manifest, fsync and rename it into place. Returns its path.

    fingerprint: of the data, which a resume compares. Raises OSError, and removes the folder, if a file that a resume
    needs is missing or truncated.
    """
    inner = _writing(folder, step) / f"checkpoint-{step}"
    crash.point("checkpoint.written")
    try:
        files = _files(inner)
        _refuse_unsound(inner, step, files)
        write_atomic(
            inner / MANIFEST,
            json.dumps(
                {"step": step, "fingerprint": fingerprint, "versions": program.versions(*WRITERS), "files": files},
                indent=1,
            ),
        )
    except BaseException:
        shutil.rmtree(_writing(folder, step), ignore_errors=True)
        raise
    crash.point("checkpoint.manifest")
    target = folder / f"checkpoint-{step}"
    replace_folder(target, inner, folder / f".old-{step}", "checkpoint")  # one of before a resume may be there
    shutil.rmtree(_writing(folder, step), ignore_errors=True)
    return target


def _files(inner: Path) -> dict[str, dict[str, Any]]:
    """fsync all files and folders; returns {name: {"bytes", "sha256" (small files only)}}."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(inner.rglob("*")):
        fsync_path(path)
        if path.is_file():
            entry: dict[str, Any] = {"bytes": path.stat().st_size}
            if entry["bytes"] <= HASHED_UP_TO:
                entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            files[str(path.relative_to(inner))] = entry
    return files


def _refuse_unsound(inner: Path, step: int, files: dict[str, Any]) -> None:
    missing = [name for name in REQUIRED_FILES if name not in files]
    if not any(name.startswith("rng_state") for name in files):
        missing.append("rng_state.pth")
    if not any(name.endswith(WEIGHTS) for name in files):
        missing.append("weights")
    truncated = [name for name in files if not _is_whole(inner / name)]
    if missing or truncated:
        problems = [f"lacks {', '.join(missing)}"] if missing else []
        problems += [f"has damaged files: {', '.join(truncated)}"] if truncated else []
        raise OSError(f"the checkpoint at step {step} {'; '.join(problems)}")
    state = json.loads((inner / "trainer_state.json").read_text())
    if state.get("global_step") != step:
        raise OSError(f"the checkpoint at step {step} holds the state of step {state.get('global_step')}")


def _is_whole(file: Path) -> bool:
    """Whether a file is complete by its format: a zip ends in its directory, safetensors states its length."""
    if file.suffix in (".pt", ".pth"):
        return zipfile.is_zipfile(file)
    if file.suffix == ".safetensors":
        try:
            header(file)
        except ModelError:
            return False
    return True


def rotate(folder: Path, keep: int, spare: set[int] = frozenset()) -> None:
    """Delete all but the newest `keep` checkpoints and those at the steps in `spare`."""
    for step in steps(folder)[:-keep]:
        if step not in spare:
            _remove(folder, f"checkpoint-{step}")
            crash.point("checkpoint.rotated")


def _remove(folder: Path, name: str) -> None:
    """Delete a checkpoint; it is renamed first, so that a half deleted one is never read."""
    trash = folder / f".old-{name.rpartition('-')[2]}.deleted"
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(folder / name, trash)
    shutil.rmtree(trash, ignore_errors=True)


# -- reading


def _manifest(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / MANIFEST).read_text())


def faults(checkpoint: Path) -> list[str]:
    """What is wrong with a checkpoint, in words; [] for a complete one."""
    try:
        files = {name: (entry["bytes"], entry.get("sha256")) for name, entry in _manifest(checkpoint)["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ["it has no manifest: it was never completed"]
    problems = []
    for name, (size, digest) in files.items():
        file = checkpoint / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != size:
            problems.append(f"{name} has {file.stat().st_size} bytes instead of {size}")
        elif digest and hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            problems.append(f"{name} was changed")
    return problems


def steps(folder: Path) -> list[int]:
    """Steps of all checkpoint folders, complete or not, ascending."""
    names = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    for step in reversed(steps(folder)):
        if not faults(folder / f"checkpoint-{step}"):
            return folder / f"checkpoint-{step}"
    return None


# -- before an attempt


def step_of(checkpoint: Path | None) -> int:
    """The steps behind a checkpoint; 0 for none."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def tidy(folder: Path) -> list[str]:
    """Remove partial writes and move damaged checkpoints to broken/. Returns sentences on what was moved and why."""
    if not folder.is_dir():
        return []
    for path in folder.glob(".*"):
        step = path.name.removeprefix(".old-")
        if step.isdigit() and not (folder / f"checkpoint-{step}").exists():
            os.rename(path, folder / f"checkpoint-{step}")  # the crash came before its replacement was in place
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    messages = []
    for step in steps(folder):
        problems = faults(folder / f"checkpoint-{step}")
        if problems:
            target = folder / BROKEN / f"checkpoint-{step}"
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(folder / f"checkpoint-{step}", target)
            messages.append(
                f"The checkpoint at step {step} is damaged ({'; '.join(problems[:3])}); it was moved to "
                f"checkpoints/{BROKEN}."
            )
    return messages


def refuse_other_data(checkpoint: Path, fingerprint: str) -> None:
    """Raise RunError if the data is not what the checkpoint was trained on. Called by the trainer before a resume."""
    before = _manifest(checkpoint)["fingerprint"]
    if before != fingerprint:
        raise RunError(
            "The rows to train on are not those the checkpoint was made with: "
            "the data file has changed, or how it is read.",
            "Put the old file back to resume, or start a new run with the new one.",
            "data.train",
        )
