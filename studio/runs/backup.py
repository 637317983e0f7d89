"""Copies of runs in a private repository of the Hub, for a Space whose disk is emptied: STUDIO_BACKUP=OWNER/NAME, HF_TOKEN.

Every STUDIO_BACKUP_MINUTES (15) the order, the diary, the log, the newest complete checkpoint and the result of each run that has
changed are sent; when a Space starts with an empty disk they are fetched again, and runs that were cut off go on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from studio import queue
from studio.errors import RunError
from studio.home import home, subfolder
from studio.run import Run, runs
from studio.runs import checkpoints

TEXTS = ("config.yaml", "events.jsonl", "log.txt", "changes.json", "label.json", "edited.json")
MARK = ".copied"  # in a run's folder: what its diary and checkpoints were like when they were copied last
TROUBLE = (OSError, ValueError, RunError)  # the Hub's own errors are OSErrors


def repository() -> str | None:
    """The repository, where copies are wanted and can be made."""
    return os.environ.get("STUDIO_BACKUP") if os.environ.get("HF_TOKEN") else None


def minutes() -> float:
    try:
        return max(1.0, float(os.environ.get("STUDIO_BACKUP_MINUTES", "15")))
    except ValueError:
        return 15.0


def has_persistent_storage() -> bool:
    """Whether what is in home survives a restart: everywhere but on a Space that has no storage at /data."""
    return not os.environ.get("SPACE_ID") or home().resolve().is_relative_to("/data")


def ensure_copied(run: Run) -> bool:
    """Whether the Hub has the run as it is now; a last copy is made for that."""
    if not repository():
        return False
    try:
        return copy(run) or _mark(run) == _kept(run)
    except TROUBLE:
        return False


def copy(run: Run) -> bool:
    """Send a run as it is now; False when nothing has changed since. Raises OSError."""
    from huggingface_hub import HfApi

    repo, mark = repository(), _mark(run)
    if repo is None or mark == _kept(run):
        return False
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(repo, private=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=subfolder("runs").parent, prefix=".copy-") as scratch:
        _lay_out(run, Path(scratch))
        api.upload_folder(
            repo_id=repo,
            folder_path=scratch,
            path_in_repo=f"runs/{run.id}",
            commit_message=f"{run.id}: {run.state()}",
            delete_patterns=["checkpoints/**", f"{run.result.name}/**"],
        )
    (run.folder / MARK).write_text(json.dumps(mark))
    return True


def _lay_out(run: Run, scratch: Path) -> None:
    """The run's files as they are at this moment. Big ones are hard links, which a rotation of checkpoints does not take away."""
    for name in TEXTS:
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, scratch / name)
    newest = checkpoints.newest(run.checkpoints)
    for folder in (newest, run.result):
        if folder is not None and folder.is_dir():
            shutil.copytree(folder, scratch / folder.relative_to(run.folder), copy_function=os.link)


def _mark(run: Run) -> list[Any]:
    newest = checkpoints.newest(run.checkpoints)
    return [newest.name if newest else None, run.result.is_dir(), (run.state_event() or {}).get("at")]


def _kept(run: Run) -> Any:
    try:
        return json.loads((run.folder / MARK).read_text())
    except (OSError, ValueError):
        return None


def fetch() -> list[Run]:
    """Runs that the Hub has and this disk has not; those that were cut off are queued again. Raises OSError."""
    repo = repository()
    if repo is None:
        return []
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ["HF_TOKEN"])
    if not api.repo_exists(repo):
        return []
    known = {run.id for run in runs()}
    there = [file.split("/") for file in api.list_repo_files(repo)]
    names = sorted(
        {parts[1] for parts in there if parts[0] == "runs" and len(parts) > 2 and not parts[1].startswith(".")} - known
    )
    with tempfile.TemporaryDirectory(dir=subfolder("runs").parent, prefix=".fetch-") as scratch:
        found = [_take_in(api, repo, Path(scratch), name) for name in names]
    return found


def _take_in(api: Any, repo: str, scratch: Path, name: str) -> Run:
    api.snapshot_download(repo, local_dir=scratch, allow_patterns=f"runs/{name}/*")
    folder = scratch / "runs" / name
    state_event = Run(folder).state_event() or {}
    run = Run(subfolder("runs") / name)
    os.rename(folder, run.folder)
    if state_event.get("kind") == "phase" and state_event["name"] != "queued":  # it ran when the disk went
        queue.reconcile(run)
        queue.resume(run)
    return run


def watch() -> threading.Thread | None:
    """For the page: fetch what there is, then copy what changes, every few minutes. None where no copies are wanted."""
    if not repository():
        return None

    def look() -> None:
        _carefully(fetch)
        while True:
            for run in runs():
                _carefully(lambda run=run: copy(run))
            time.sleep(60 * minutes())

    thread = threading.Thread(target=look, name="backup", daemon=True)
    thread.start()
    return thread


def _carefully(step: Any) -> None:
    try:
        step()
    except TROUBLE as error:  # the Hub is away: the next turn tries again
        print(f"backup: {type(error).__name__}", file=sys.stderr, flush=True)
