"""Runs: created, listed, found and deleted. What one is and says is read from its folder (runs/folder.py)."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from datetime import datetime
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any

from studio import crash, events
from studio.config import RunConfig
from studio.data.editing.record import record_of
from studio.errors import RunError
from studio.events import Lock
from studio.home import fsync_path, inside, numbered, slug, subfolder
from studio.runs import recovery
from studio.runs.folder import REQUESTS, Run
from studio.runs.state import ALIVE, STATES, WORKING, current_events, phase
from studio.runs.summary import summary

__all__ = [
    "ALIVE", "REQUESTS", "STATES", "WORKING", "Run", "create", "current_events", "delete", "find", "is_run", "phase",
    "runs", "summary", "sweep"
]  # fmt: skip


def _edited(config: RunConfig) -> list[dict[str, Any]]:
    """The records of the data files that were made in the editor, each with its "source"."""
    sections = [section for section, _ in config.data_sections()]
    sources = [item.source for section in sections for item in section.sources()]
    sources += [section.eval for section in sections if isinstance(section.eval, str)]
    return [
        {"source": source, **record}
        for source in dict.fromkeys(sources)
        if (record := record_of(Path(source).expanduser()))
    ]


def create(config: RunConfig, order: float | None = None, begun: Path | None = None, queued: bool = True) -> Run:
    """Create a run's folder atomically, with its order and a first event that says it is queued.

    Relative paths are resolved against the caller's folder. order: position in the queue, the smallest first; the
    current time by default. begun: a folder whose events, checkpoints and result are copied first; with queued False
    nothing is added to its events.
    """
    origin = find(config.start) if config.start else None
    if origin:
        config = config.with_changes(start=origin.id)
    name = slug(config.name or f"{config.method.name}-{Path(config.model.source).stem.lower()}", "run")
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M")
    with Lock(subfolder("locks") / "create"):
        temporary = subfolder("runs") / f".{os.getpid()}-{time.monotonic_ns()}.tmp"
        if begun:
            shutil.copytree(begun, temporary)
        else:
            temporary.mkdir()
        (temporary / "config.yaml").write_text(config.with_absolute_paths().to_yaml(), encoding="utf-8")
        if origin:
            shutil.copytree(origin.result, temporary / "start", dirs_exist_ok=True)
        if edited := _edited(config):
            (temporary / "edited.json").write_text(json.dumps(edited), encoding="utf-8")
        if queued:
            position = time.time() if order is None else order
            events.append(temporary / "events.jsonl", "phase", name="queued", attempt=0, order=position)
        for file in ("config.yaml", "events.jsonl"):
            fsync_path(temporary / file)  # an fsync: what waits survives a power cut
        crash.point("create.written")
        return Run(_renamed(temporary, f"{stamp}-{name}"))


def _renamed(temporary: Path, name: str) -> Path:
    """A run's folder under its name, numbered where the name is taken. Raises RunError past a thousand."""
    for folder in islice(numbered(subfolder("runs"), name), 1000):
        try:
            os.rename(temporary, folder)  # fails when a non-empty folder stands there
        except OSError:
            continue
        fsync_path(folder.parent)
        crash.point("create.renamed")
        return folder
    shutil.rmtree(temporary)
    raise RunError("A thousand runs of one name in one minute.", "Give another name.", "name")


def sweep() -> None:
    """Remove run folders that a crash left half created or half deleted."""
    with Lock(subfolder("locks") / "create"):
        for path in subfolder("runs").iterdir():
            if path.name.startswith(".") and path.name.endswith((".tmp", ".deleted")):
                shutil.rmtree(path, ignore_errors=True)


def is_run(folder: Path) -> bool:
    """Whether the folder belongs to a run that can be read: it has an order or events."""
    order, diary = folder / "config.yaml", folder / "events.jsonl"
    try:
        return diary.is_file() and os.access(diary, os.R_OK) or (order.is_file() and not os.path.lexists(diary))
    except OSError:
        return False


def unreadable() -> list[RunError]:
    """What to say of each run that cannot be read, such as one of another user. `runs` is without them."""
    return [
        unreadable_error(path)
        for path in sorted(subfolder("runs").iterdir())
        if not path.name.startswith(".") and not is_run(path) and _holds_a_run(path)
    ]


def unreadable_error(folder: Path) -> RunError:
    hint = f"Is it another user's, or damaged? Look at the permissions of {folder}, or move it elsewhere."
    return RunError(f"The run {folder.name} cannot be read.", hint, "run")


def _holds_a_run(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = ("config.yaml", "events.jsonl")
    return not os.access(folder, os.R_OK | os.X_OK) or any(os.path.lexists(folder / name) for name in names)


def runs() -> list[Run]:
    """All runs that can be read, newest first."""
    folders = [path for path in subfolder("runs").iterdir() if not path.name.startswith(".") and is_run(path)]
    return [Run(path) for path in sorted(folders, key=lambda path: path.name, reverse=True)]


def find(name: str) -> Run:
    """A run by its id, by what stands behind the date or the time there, by a unique part of it, or `last`.

    Raises RunError that lists near ones; also where two have the name, of which the second ends in -2.
    """
    all_runs = runs()
    if name == "last" and all_runs:
        return max(all_runs, key=lambda run: _created(run.folder))
    named = re.compile(rf"{re.escape(name)}(-\d+)?")
    exact = [run for run in all_runs if run.id == name] or [
        run for run in all_runs if any(named.fullmatch(run.id[start:]) for start in (11, 16))
    ]
    matching = exact or [run for run in all_runs if name and name in run.id]
    if len(matching) == 1:
        return matching[0]
    if len(matching) > 1:
        message = f"{len(matching)} runs have {name!r} in their name: {', '.join(run.id for run in matching[:5])}."
        hint = "Give more of the name."
        raise RunError(message, hint, "run")
    for error in unreadable():
        if name and name in error.message:
            raise error
    near = sorted(
        all_runs,
        key=lambda run: max(SequenceMatcher(None, name, part).ratio() for part in (run.id, run.id[16:])),
        reverse=True,
    )
    known = ", ".join(run.id for run in near[:5]) or "there is none yet"
    raise RunError(f"There is no run {name!r}.", f"Runs: {known}.", "run")


def _created(folder: Path) -> int:
    """When its order was written, in ns; 0 if it is missing."""
    file = folder / "config.yaml"
    return file.stat().st_mtime_ns if file.exists() else 0


def delete(run: Run, keep_files: bool = False) -> int:
    """Delete a run that is not alive and return its size in bytes. Raises RunError while it is alive.

    The folder is renamed first, so that a half deleted run is never listed. keep_files: move the folder to
    STUDIO_HOME/removed instead.
    """
    if any(map(events.is_locked, run.folder.glob("*/lock"))):  # of a job beside it: side_job.py
        raise RunError(f"{run.id} is being evaluated, judged or searched.", "Stop that first.", "run")
    with recovery.exclusive(run, wait=2) as locked:
        if not locked or not recovery.end_orphans(run):
            raise RunError(f"{run.id} is still running.", "Stop it first.", "run")
        size = run.size()
        if keep_files:
            os.rename(run.folder, inside(subfolder("removed"), run.id))
            return size
        trash = inside(subfolder("runs"), f".{run.id}.deleted")
        shutil.rmtree(trash, ignore_errors=True)
        os.rename(run.folder, trash)
        crash.point("delete.renamed")
        shutil.rmtree(trash)
        return size
