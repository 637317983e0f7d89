"""A side job begun from the page, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any

from studio import child_process, credentials, json_text
from studio.device import devices
from studio.evaluation.endpoint import KEY
from studio.events import Lock
from studio.home import write_atomic
from studio.runs import claim
from studio.side_job import FolderJob


def begin(job: FolderJob, command: str, request: dict[str, Any], device: bool = True) -> None:
    """Begin `python -m studio COMMAND ID --request FILE`. device: the job needs it. Raises RunError, DeviceError."""
    if job.going():
        raise job.going_already()
    if device:
        lock = claim.device_lock(devices()[0])
        if not lock.acquire():
            raise job.device_in_use()
        lock.release()
    job.folder.mkdir(exist_ok=True)
    request_file = job.folder / "request.json"
    write_atomic(request_file, json.dumps(request, ensure_ascii=False))
    (job.folder / "failed.json").unlink(missing_ok=True)
    job.tell("starting", at_once=True)
    with open(job.folder / "page.log", "wb") as log, credentials.handed_over(*credentials.HUB, KEY) as secrets:
        words = ["-m", "studio", command, job.id, "--json", "--request", str(request_file)]
        process = child_process.begin_apart(words, subprocess.PIPE, log, **secrets)
    threading.Thread(target=_note_refusal, args=(job, process), daemon=True).start()


def _note_refusal(job: FolderJob, process: subprocess.Popen[bytes]) -> None:
    """Write down why a command failed that ended before it held the job's lock."""
    answer = process.communicate()[0]
    failed, lock = job.folder / "failed.json", Lock(job.folder / "lock")
    if not process.returncode or failed.exists() or not lock.acquire():
        return
    try:
        failure = _refusal(answer) or job.failure(process.returncode, None, job.folder / "page.log").as_dict()
        write_atomic(failed, json.dumps(failure, ensure_ascii=False))
        (job.folder / "progress.json").unlink(missing_ok=True)
    finally:
        lock.release()


def _refusal(answer: bytes) -> dict[str, Any] | None:
    """The error that a command printed as --json has it."""
    try:
        return json_text.read(answer)["error"]
    except (ValueError, TypeError, KeyError):
        return None
