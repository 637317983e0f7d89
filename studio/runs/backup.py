"""Copies of runs in a private Hub repository, for a Space without persistent disk: STUDIO_BACKUP=OWNER/NAME, HF_TOKEN.

Every STUDIO_BACKUP_MINUTES (15) the order, events, log, newest complete checkpoint and result of each run that has
changed are uploaded. When a Space starts with an empty disk they are downloaded, and interrupted runs are resumed.
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

from studio import json_text, queue
from studio.base import hub
from studio.errors import RunError, StudioError
from studio.home import home, subfolder
from studio.run import Run, runs
from studio.runs import checkpoints

TEXT_FILES = ("config.yaml", "events.jsonl", "log.txt", "changes.json", "label.json", "edited.json")
FINGERPRINT_FILE = ".copied"  # in a run's folder: the fingerprint of its last copy


def repository() -> str | None:
    """The repository to copy to, None if copying is not configured."""
    return os.environ.get("STUDIO_BACKUP") if os.environ.get("HF_TOKEN") else None


def minutes() -> float:
    try:
        return max(1.0, float(os.environ.get("STUDIO_BACKUP_MINUTES", "15")))
    except ValueError:
        return 15.0


def has_persistent_storage() -> bool:
    """Whether the home survives a restart: always, except on a Space without storage at /data."""
    return not os.environ.get("SPACE_ID") or home().resolve().is_relative_to("/data")


def ensure_copied(run: Run) -> bool:
    """Copy the run if it has changed. Returns whether the Hub now has its current state."""
    if not repository():
        return False
    try:
        return copy(run) or _fingerprint(run) == _last_copied(run)
    except (*hub.errors(), ValueError, RunError):
        return False


def copy(run: Run) -> bool:
    """Upload the run; False if nothing has changed since the last copy. Raises OSError."""
    from huggingface_hub import HfApi

    repo, fingerprint = repository(), _fingerprint(run)
    if repo is None or fingerprint == _last_copied(run):
        return False
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(repo, private=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=subfolder("runs").parent, prefix=".copy-") as scratch:
        _stage_files(run, Path(scratch))
        api.upload_folder(
            repo_id=repo,
            folder_path=scratch,
            path_in_repo=f"runs/{run.id}",
            commit_message=f"{run.id}: {run.state()}",
            delete_patterns=["checkpoints/**", f"{run.result.name}/**"],
        )
    (run.folder / FINGERPRINT_FILE).write_text(json.dumps(fingerprint))
    return True


def _stage_files(run: Run, scratch: Path) -> None:
    """Put the run's current files into scratch; hard links of large ones survive a rotation of checkpoints."""
    for name in TEXT_FILES:
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, scratch / name)
    newest = checkpoints.newest(run.checkpoints)
    for folder in (newest, run.result):
        if folder is not None and folder.is_dir():
            shutil.copytree(folder, scratch / folder.relative_to(run.folder), copy_function=os.link)


def _fingerprint(run: Run) -> list[Any]:
    newest = checkpoints.newest(run.checkpoints)
    return [newest.name if newest else None, run.result.is_dir(), (run.state_event() or {}).get("at")]


def _last_copied(run: Run) -> list[Any]:
    return json_text.read_or_default(run.folder / FINGERPRINT_FILE, [])


def fetch() -> list[Run]:
    """Download runs missing on this disk and queue the interrupted ones again. Returns them. Raises OSError."""
    repo = repository()
    if repo is None:
        return []
    from huggingface_hub import HfApi

    api = HfApi(token=os.environ["HF_TOKEN"])
    if not api.repo_exists(repo):
        return []
    known = {run.id for run in runs()}
    paths = [file.split("/") for file in api.list_repo_files(repo)]
    stored = {parts[1] for parts in paths if parts[0] == "runs" and len(parts) > 2 and not parts[1].startswith(".")}
    with tempfile.TemporaryDirectory(dir=subfolder("runs").parent, prefix=".fetch-") as scratch:
        return [_restore(api, repo, Path(scratch), name) for name in sorted(stored - known)]


def _restore(api: Any, repo: str, scratch: Path, name: str) -> Run:
    api.snapshot_download(repo, local_dir=scratch, allow_patterns=f"runs/{name}/*")
    folder = scratch / "runs" / name
    state_event = Run(folder).state_event() or {}
    run = Run(subfolder("runs") / name)
    os.rename(folder, run.folder)
    if state_event.get("kind") == "phase" and state_event["name"] != "queued":  # it was running when the disk was lost
        queue.reconcile(run)
        try:
            queue.resume(run)
        except StudioError as error:  # it stays as it was found
            run.note(error.message, error.hint)
    return run


def watch() -> threading.Thread | None:
    """Start a thread that downloads missing runs, then copies changed ones every few minutes. None if unset."""
    if not repository():
        return None

    def loop() -> None:
        _log_errors(fetch)
        while True:
            for run in runs():
                _log_errors(lambda run=run: copy(run))
            time.sleep(60 * minutes())

    thread = threading.Thread(target=loop, name="backup", daemon=True)
    thread.start()
    return thread


def _log_errors(step: Any) -> None:
    try:
        step()
    except (*hub.errors(), ValueError, RunError) as error:  # the Hub is unreachable: retried in the next round
        print(f"backup: {type(error).__name__}", file=sys.stderr, flush=True)
