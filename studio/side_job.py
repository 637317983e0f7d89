"""A job beside a finished run, such as a search for influential rows: a folder in the run's, a lock, progress, a stop.

FOLDER/lock is held while the job lives, progress.json says what it does, stop asks for its end, failed.json says why it
failed, and results.json is the last complete answer. So page, terminal and a second browser see the same.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from studio import events, json_text
from studio.child_process import how_ended
from studio.device import devices
from studio.errors import DeviceError, ModelError, RunError, StudioError, as_studio_error, internal_error, reason_of
from studio.events import Lock
from studio.home import subfolder, write_atomic
from studio.job_process import open_worker
from studio.run import Run
from studio.runs import claim
from studio.talk import chat

STARTING = 30.0  # seconds that a process that was just begun has until it holds the lock
STOPPED = "stopped"  # the reason of an error where the user asked for the end
Progress = Callable[[dict[str, Any]], None]


class FolderJob:
    """A job in a folder of its own. id: what its command is given; name: of the job in sentences, as "The search".

    shape: what results.json has to hold to be shown.
    """

    shape: TypeAdapter[Any] = TypeAdapter(dict[str, Any])

    def __init__(self, folder: Path, id: str, name: str, progress: Progress = lambda _: None):
        self.folder = folder
        self.id = id
        self.name = name
        self.progress = progress
        self._told = 0.0

    # -- how it stands

    def results(self) -> dict[str, Any]:
        """The last complete answer; {} without one, or where the file holds something else."""
        found = json_text.read_or_default(self.folder / "results.json", {})
        try:
            self.shape.validate_python(found)
        except ValidationError:
            return {}
        return found

    def going(self) -> bool:
        """Whether the job is going on or has just been started."""
        if events.is_locked(self.folder / "lock"):
            return True
        progress = self.folder / "progress.json"
        try:
            return time.time() - progress.stat().st_mtime < STARTING and '"starting"' in progress.read_text()
        except OSError:
            return False

    def status(self) -> dict[str, Any]:
        """{state: none, going, done, stopped, failed or cut off; doing, done, of, error}.

        error: of a job that failed, or was stopped before it had anything to keep.
        """
        progress, failure = (
            json_text.read_or_default(self.folder / f"{name}.json", {}) for name in ("progress", "failed")
        )
        if self.going():
            return {**progress, "state": "going"}
        if failure:
            return {"state": "stopped" if failure.get("reason") == STOPPED else "failed", "error": failure}
        if progress:
            return {"state": "cut off"}
        results = self.results()
        if not results and (self.folder / "results.json").exists():
            message = f"{self.folder.name}/results.json does not hold what this job writes."
            return {"state": "failed", "error": RunError(message, "Start it again: it is written anew.").as_dict()}
        return {"state": results.get("state", "done") if results else "none"}

    def request_stop(self) -> None:
        if self.folder.is_dir():
            (self.folder / "stop").touch()

    def stop_requested(self) -> bool:
        return (self.folder / "stop").exists()

    # -- carrying it out

    @contextlib.contextmanager
    def working(self, device: bool = True, claimed: bool = False) -> Iterator[None]:
        """Hold the job's lock and, with `device`, that of the device; a failure is written down for the page.

        claimed: the caller holds the device. Raises RunError or DeviceError where a lock is held by another. What ends
        without a reason that could be written (the process is ended, the disk is full) is left as one cut off.
        """
        lock, device_lock = Lock(self.folder / "lock"), claim.device_lock(devices()[0])
        if not lock.acquire():
            raise self.going_already()
        try:
            for name in ("stop", "failed.json"):
                (self.folder / name).unlink(missing_ok=True)
            if device:
                if not claimed and not device_lock.acquire():
                    raise self.device_in_use()
                chat.end_if_idle(devices()[:1])
            self.tell("starting", at_once=True)
            yield
            (self.folder / "progress.json").unlink(missing_ok=True)
        except Exception as error:
            explained = as_studio_error(error) or internal_error(error)
            failure = explained.as_dict() | {"reason": explained.reason}
            write_atomic(self.folder / "failed.json", json.dumps(failure, ensure_ascii=False))
            (self.folder / "progress.json").unlink(missing_ok=True)
            raise
        finally:
            (self.folder / "stop").unlink(missing_ok=True)
            device_lock.release()
            lock.release()

    def tell(self, doing: str, done: int = 0, of: int = 0, at_once: bool = False) -> None:
        """Write progress down, twice a second at most."""
        if not at_once and time.monotonic() - self._told < 0.5:
            return
        self._told = time.monotonic()
        progress = {"doing": doing, "done": done, "of": of}
        write_atomic(self.folder / "progress.json", json.dumps(progress))
        self.progress(progress)

    def keep(self, answer: dict[str, Any]) -> dict[str, Any]:
        write_atomic(self.folder / "results.json", json.dumps(answer, ensure_ascii=False))
        return answer

    def carry_out(self, module: str, order: dict[str, Any], secrets: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Run a worker on an order; returns the objects that it printed, a line each, but for kind `doing` (progress).

        Raises RunError where it was stopped, ModelError with what the worker says where it failed.
        """
        printed: list[dict[str, Any]] = []

        def take(event: dict[str, Any]) -> None:
            if event["kind"] == "doing":
                self.tell(event["doing"], event.get("done", 0), event.get("of", 0), at_once=not event.get("done"))
            else:
                printed.append(event)

        if self.stream(module, order, take, secrets):
            raise self.stopped()
        return printed

    def stream(
        self, module: str, order: dict[str, Any], take: Callable[[dict[str, Any]], None], secrets: Sequence[str] = ()
    ) -> bool:
        """Run a worker and give `take` each object it prints; True where it was stopped. Raises ModelError.

        secrets: names of those that it needs.
        """
        failure: dict[str, Any] | None = None
        stopped = threading.Event()
        log_file = self.folder / "log.txt"
        with tempfile.TemporaryDirectory(dir=subfolder("cache")) as scratch, open(log_file, "wb") as log:
            order_file = Path(scratch, "order.json")
            order_file.write_text(json.dumps(order, ensure_ascii=False))
            with open_worker([module, str(order_file)], log, secrets) as worker:
                threading.Thread(target=self._stop_when_asked, args=(worker, stopped), daemon=True).start()
                for line in worker.stdout or ():
                    if not line.startswith('{"kind"'):
                        continue
                    event = json.loads(line)
                    if event["kind"] == "error":
                        failure = event
                    else:
                        take(event)
        if worker.returncode and not stopped.is_set():
            raise self.failure(worker.returncode, failure, log_file)
        return stopped.is_set()

    def _stop_when_asked(self, worker: subprocess.Popen[str], stopped: threading.Event) -> None:
        while worker.poll() is None:
            if self.stop_requested():
                stopped.set()
                worker.terminate()
                return
            time.sleep(0.2)

    def failure(self, code: int, error: dict[str, Any] | None, log_file: Path) -> StudioError:
        if error:
            return ModelError(error["message"], error["hint"], error["where"])
        last = how_ended(code, log_file.read_text(errors="replace"))
        hint = f"The whole output is in {log_file}. If memory was short, end the chat and try again."
        return ModelError(f"{self.name} failed: {last[:300]}", hint, self.folder.name)

    def stopped(self) -> StudioError:
        return RunError(f"{self.name} was stopped as asked.", "Start it again when you like.", "run", STOPPED)

    def going_already(self) -> StudioError:
        return RunError(f"{self.name} is going on already.", "Wait until it is done, or stop it.", "run")

    def device_in_use(self) -> StudioError:
        hint = "Try again when it has ended, or stop it."
        return DeviceError(f"{devices()[0].name} is in use: a run or another examination has it.", hint, "device")


class SideJob(FolderJob):
    """A job beside a run. kind: its folder's name there."""

    def __init__(self, run: Run, kind: str, name: str, progress: Progress = lambda _: None):
        super().__init__(run.folder / kind, run.id, name, progress)
        self.run = run

    def stop_requested(self) -> bool:
        """Whether the end of the job, or of its living run, is asked for. A stopped run may be examined."""
        return super().stop_requested() or (self.run.stop_file.exists() and self.run.alive())


def read_request(file: str) -> dict[str, Any]:
    """What the page asked for. Raises RunError."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"The request cannot be read: {reason_of(error)}.", "Ask again.", "request") from error
