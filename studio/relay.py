"""python -m studio.relay BUNDLE ATTEMPT EVENTS LOG: executes an order sent from another computer and reports on it.

BUNDLE is a folder with order.yaml, changes.json and files/. Standard output, a line each:

    @ready                  before all others: the place answers
    @event OFFSET {...}     a line of the run's events.jsonl; OFFSET: the byte behind it
    @log OFFSET "text"      a part of its log.txt, as a JSON string

EVENTS and LOG are the byte offsets up to which the other side has both files. The run continues without this process.

python -m studio.relay --remove BUNDLE deletes its run and the bundle.

python -m studio.relay --hub REPOSITORY NAME ATTEMPT does the same inside a Job: bundle and requests come from the
repository, and runs/backup.py copies the run there (STUDIO_BACKUP, HF_TOKEN).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from studio import config, preflight, queue
from studio.base import hub
from studio.errors import DeviceError, StudioError
from studio.events import FULL, Lock, read
from studio.home import subfolder, write_atomic
from studio.run import ALIVE, REQUESTS, Run, delete
from studio.runs import backup, log

POLL = 0.5  # seconds between two polls
PART = 4_000  # bytes of log in a line
HUB_POLL = float(os.environ.get("STUDIO_HUB_LOOK", 10))  # seconds between two polls of the Hub


def relay(
    bundle: Path,
    attempt: int,
    position: tuple[int, int],
    send: Callable[[str], None],
    each: Callable[[Run], None] = lambda run: None,
    last: Callable[[Run], None] = lambda run: None,
) -> None:
    """Execute the bundle's order and report on it until the run has ended.

    attempt: of the run on the other side; a higher number than before resumes an ended run. position: the bytes of
    events and log that the other side has. each: called at every poll. last: called after the run's end, before that is
    reported.
    """
    with Lock(bundle / "lock"):
        run = _run(bundle, attempt)
    cursor, log_position = position[0], (0, position[1])
    while True:
        _forward_requests(bundle, run)
        ended = queue.over(run)
        if ended:
            last(run)
        cursor = _send_events(run, cursor, send)
        data, log_position = log.follow(run.log, log_position)
        for start in range(0, len(data), PART):
            offset = log_position[1] - len(data) + min(len(data), start + PART)
            send(f"@log {offset} {json.dumps(data[start : start + PART].decode('utf-8', 'replace'))}")
        each(run)
        if ended:
            return
        time.sleep(POLL)


def _send_events(run: Run, cursor: int, send: Callable[[str], None]) -> int:
    """Send new events, each with its own offset so that an interrupted reader can continue. Returns the new offset."""
    while True:
        new_events, after = read(run.events_file, cursor, limit=1)
        if after == cursor:
            return cursor
        for event in new_events:
            send(f"@event {after} {json.dumps(event, ensure_ascii=False)}")
        cursor = after


def _remove(bundle: Path) -> None:
    """Delete the bundle and its run. Raises RunError while the run is alive."""
    try:
        run = Run(subfolder("runs") / json.loads((bundle / "answer.json").read_text())["run"])
    except FileNotFoundError:
        run = None  # sent but never started
    if run is not None and run.folder.is_dir():
        delete(run)
    shutil.rmtree(bundle)


def _run(bundle: Path, attempt: int) -> Run:
    """The bundle's run: submitted the first time, resumed when the other side has started another attempt."""
    answer, changes = bundle / "answer.json", json.loads((bundle / "changes.json").read_text())
    try:
        known = json.loads(answer.read_text())
    except FileNotFoundError:
        run = queue.submit(_order(bundle))
        known = {"run": run.id, "attempt": attempt, "changes": 0}
    run = Run(subfolder("runs") / known["run"])
    if attempt > known["attempt"] and not run.alive() and queue.reconcile(run) not in ("queued", *ALIVE):
        for ask in bundle.glob("ask-*"):
            ask.unlink(missing_ok=True)
        new = changes[known["changes"] :]
        merged: dict = {}
        for change in new:
            for section, values in change["changes"].items():
                merged.setdefault(section, {}).update(values)
        if merged or run.state() != "finished":
            queue.resume(run, merged or None, why=new[-1]["why"] if new else "")
    write_atomic(answer, json.dumps({"run": run.id, "attempt": attempt, "changes": len(changes)}))
    link = bundle / "run"
    if not link.is_symlink():
        link.symlink_to(run.folder)
    return run


def _order(bundle: Path) -> config.RunConfig:
    """The order with its files' paths on this computer."""
    plain = yaml.safe_load((bundle / "order.yaml").read_text())
    for section, key in ((plain["data"], "train"), (plain["data"], "eval"), (plain["model"], "source")):
        if key in section:
            section[key] = _resolve(bundle, section[key])
    order = config.build(plain)
    preflight.check(order)
    return order


def _resolve(bundle: Path, value: object) -> object:
    """A path that begins with files/ becomes a path into the bundle; any other value is unchanged."""
    if isinstance(value, list):
        return [{**item, "source": _resolve(bundle, item["source"])} for item in value]
    return str(bundle / value) if isinstance(value, str) and value.startswith("files/") else value


def _forward_requests(bundle: Path, run: Run) -> None:
    """Pass on the other side's requests: files named ask-WORD, removed once handled."""
    for ask in sorted(bundle.glob("ask-*")):
        word = ask.name.removeprefix("ask-")
        try:
            if word in REQUESTS:
                run.ask(word)
            elif word == "pause":
                run.request_stop("keep")  # it waits in the queue of the other side, not in ours
            elif word in ("stop", "discard"):
                queue.stop(run, discard=word == "discard")
        except StudioError as error:
            print(error, file=sys.stderr)  # the run has ended meanwhile
        ask.unlink(missing_ok=True)


class Hub:
    """The run's repository inside a Job: source of the bundle and of requests, target of the run's copies."""

    def __init__(self, repo: str, name: str):
        from huggingface_hub import HfApi

        self.api, self.repo, self.bundle = HfApi(), repo, subfolder("relay") / name
        self.copying: threading.Thread | None = None
        self.looked = 0.0

    def unpack(self) -> Path:
        """Download the bundle, and the run as an earlier Job left it. An interrupted run is resumed."""
        self.api.snapshot_download(self.repo, local_dir=self.bundle.parent / "repository", allow_patterns=["box/**"])
        shutil.copytree(self.bundle.parent / "repository" / "box", self.bundle, dirs_exist_ok=True)
        for ask in self.bundle.glob("ask-*"):
            ask.unlink()  # meant for an earlier Job
        for run in backup.fetch():
            write_atomic(
                self.bundle / "answer.json", json.dumps({"run": run.id, "attempt": 0, "changes": len(run.changes())})
            )
        return self.bundle

    def look(self, run: Run) -> None:
        """Every HUB_POLL seconds: fetch requests, and copy what is new in a thread."""
        if time.monotonic() - self.looked < HUB_POLL:
            return
        self.looked = time.monotonic()
        try:
            for path in self.api.list_repo_files(self.repo):
                if path.startswith("box/ask-"):
                    (self.bundle / path.removeprefix("box/")).touch()
                    self.api.delete_file(path, self.repo, commit_message="taken")
        except hub.errors() as error:  # the next poll tries again
            print(f"the Hub does not answer: {type(error).__name__}", file=sys.stderr)
        if self.copying is None or not self.copying.is_alive():
            self.copying = threading.Thread(target=backup.ensure_copied, args=(run,), daemon=True)
            self.copying.start()

    def finish(self, run: Run) -> None:
        """Make the last copy, with retries: the result exists nowhere else. Raises DeviceError."""
        if self.copying is not None:
            self.copying.join()
        for wait in (0, 5, 20, 60, 120):
            time.sleep(wait)
            if backup.ensure_copied(run):
                return
        hint = f"Look whether {self.repo} may be written with this token."
        raise DeviceError("The result could not be copied to the Hub.", hint, "place")


def main(arguments: list[str]) -> int:
    """Exit status: 0: the run has ended, 1: the connection was lost, 2: the order was refused (with an end event)."""

    def send(line: str) -> None:
        print(line, flush=True)

    events_from = 0
    try:
        if arguments[0] == "--remove":
            _remove(Path(arguments[1]).expanduser())
        elif arguments[0] == "--hub":
            repository = Hub(arguments[1], arguments[2])
            relay(repository.unpack(), int(arguments[3]), (0, 0), send, repository.look, repository.finish)
        else:
            events_from = int(arguments[2])
            send("@ready")
            relay(Path(arguments[0]).expanduser(), int(arguments[1]), (events_from, int(arguments[3])), send)
    except BrokenPipeError:
        return 1  # the connection was lost; the run continues
    except OSError as error:
        if error.errno not in FULL:
            raise
        cause, action = "The disk of the computer it trains on is full.", "Free some space there, then resume the run."
        reason = "disk"
    except StudioError as error:
        if arguments[0] == "--remove":
            print(error, file=sys.stderr)
            return 2
        cause, action, reason = error.message, error.hint, error.reason
    else:
        return 0
    end = {"kind": "end", "at": time.time(), "state": "failed", "cause": cause, "action": action, "reason": reason}
    send(f"@event {events_from + 1} {json.dumps(end)}")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
