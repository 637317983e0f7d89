"""python -m studio.relay BOX ATTEMPT EVENTS LOG: carries out an order that was sent from another computer, and tells of it.

BOX is a folder with order.yaml, changes.json and files/. Standard output, a line each:

    @event OFFSET {...}     a line of the run's events.jsonl; OFFSET: the byte behind it
    @log OFFSET "text"      a part of its log.txt, as a JSON string

EVENTS and LOG say up to which byte the other side has them. The run goes on when this process, or the connection, is gone.

python -m studio.relay --remove BOX deletes its run, and the box.

python -m studio.relay --hub REPOSITORY NAME ATTEMPT does the same inside a Job: the box comes from the repository, requests too, and
runs/backup.py copies the run there (STUDIO_BACKUP, HF_TOKEN).
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

from studio import config, preflight, queue, run
from studio.errors import DeviceError, StudioError
from studio.events import FULL, Lock, read
from studio.home import subfolder, write_atomic
from studio.run import REQUESTS, Run
from studio.runs import backup, log

LOOK = 0.5  # seconds between two looks
PART = 4_000  # bytes of log in a line
HUB_LOOK = float(os.environ.get("STUDIO_HUB_LOOK", 10))  # seconds between two looks at the Hub


def relay(
    bundle: Path,
    attempt: int,
    events_from: int,
    log_from: int,
    tell: Callable[[str], None],
    each: Callable[[Run], None] = lambda one: None,
    last: Callable[[Run], None] = lambda one: None,
) -> None:
    """Carry the box's order out and tell of it until the run is over.

    attempt: of the run at the other side; a higher one than before lets an ended run go on. each: called at every look; last: behind the
    run's end, before that is told.
    """
    with Lock(bundle / "lock"):
        one = _run(bundle, attempt)
    cursor, place = events_from, (0, log_from)
    while True:
        _pass_on(bundle, one)
        ended = _over(one)
        if ended:
            last(one)
        cursor = _tell_events(one, cursor, tell)
        data, place = log.follow(one.log, place)
        for start in range(0, len(data), PART):
            told = place[1] - len(data) + min(len(data), start + PART)
            tell(f"@log {told} {json.dumps(data[start : start + PART].decode('utf-8', 'replace'))}")
        each(one)
        if ended:
            return
        time.sleep(LOOK)


def _tell_events(one: Run, cursor: int, tell: Callable[[str], None]) -> int:
    """Line by line, each with its own offset, so that whoever is cut off in the middle knows where to go on."""
    while True:
        found, after = read(one.events_file, cursor, limit=1)
        if after == cursor:
            return cursor
        for event in found:
            tell(f"@event {after} {json.dumps(event, ensure_ascii=False)}")
        cursor = after


def _remove(bundle: Path) -> None:
    """Delete the box's run here, and the box. Raises RunError while it is running."""
    try:
        one = Run(subfolder("runs") / json.loads((bundle / "answer.json").read_text())["run"])
    except FileNotFoundError:
        one = None  # it was sent, and never begun
    if one is not None and one.folder.is_dir():
        run.delete(one)
    shutil.rmtree(bundle)


def _over(one: Run) -> bool:
    state = queue.reconcile(one)
    return state not in ("queued", *run.ALIVE) and not one.alive() or (state == "queued" and queue.on_hold(one))


def _run(bundle: Path, attempt: int) -> Run:
    """The box's run: ordered the first time, and going on again when the other side has begun another attempt."""
    answer, changes = bundle / "answer.json", json.loads((bundle / "changes.json").read_text())
    try:
        known = json.loads(answer.read_text())
    except FileNotFoundError:
        one = queue.submit(_order(bundle))
        known = {"run": one.id, "attempt": attempt, "changes": 0}
    one = Run(subfolder("runs") / known["run"])
    if attempt > known["attempt"] and not one.alive() and queue.reconcile(one) not in ("queued", *run.ALIVE):
        for ask in bundle.glob("ask-*"):
            ask.unlink(missing_ok=True)
        new = changes[known["changes"] :]
        merged: dict = {}
        for change in new:
            for section, values in change["changes"].items():
                merged.setdefault(section, {}).update(values)
        if merged or one.state() != "finished":
            queue.resume(one, merged or None, why=new[-1]["why"] if new else "")
    write_atomic(answer, json.dumps({"run": one.id, "attempt": attempt, "changes": len(changes)}))
    link = bundle / "run"
    if not link.is_symlink():
        link.symlink_to(one.folder)
    return one


def _order(bundle: Path) -> config.RunConfig:
    """The order with its files' places here."""
    plain = yaml.safe_load((bundle / "order.yaml").read_text())
    for section, key in ((plain["data"], "train"), (plain["data"], "eval"), (plain["model"], "source")):
        if key in section:
            section[key] = _placed(bundle, section[key])
    order = config.build(plain)
    preflight.check(order)
    return order


def _placed(bundle: Path, value: object) -> object:
    """A path that begins with files/ as it stands here; everything else as it is."""
    if isinstance(value, list):
        return [{**item, "source": _placed(bundle, item["source"])} for item in value]
    return str(bundle / value) if isinstance(value, str) and value.startswith("files/") else value


def _pass_on(bundle: Path, one: Run) -> None:
    """What the other side asks for: files named ask-WORD, taken away once passed on."""
    for ask in sorted(bundle.glob("ask-*")):
        word = ask.name.removeprefix("ask-")
        try:
            if word in REQUESTS:
                one.ask(word)
            elif word == "pause":
                one.request_stop("keep")  # it waits in the queue of the other side, not in ours
            elif word in ("stop", "discard"):
                queue.stop(one, discard=word == "discard")
        except StudioError as error:
            print(error, file=sys.stderr)  # it has ended meanwhile
        ask.unlink(missing_ok=True)


class Hub:
    """The run's repository, as the Job sees it: what was sent, what is asked, and where the run is copied to."""

    def __init__(self, repo: str, name: str):
        from huggingface_hub import HfApi

        self.api, self.repo, self.bundle = HfApi(), repo, subfolder("relay") / name
        self.copying: threading.Thread | None = None
        self.looked = 0.0

    def unpack(self) -> Path:
        """The box, and the run as an earlier Job left it. A run that was cut off goes on by itself."""
        self.api.snapshot_download(self.repo, local_dir=self.bundle.parent / "repository", allow_patterns=["box/**"])
        shutil.copytree(self.bundle.parent / "repository" / "box", self.bundle, dirs_exist_ok=True)
        for ask in self.bundle.glob("ask-*"):
            ask.unlink()  # asked of an earlier Job
        for one in backup.fetch():
            write_atomic(
                self.bundle / "answer.json", json.dumps({"run": one.id, "attempt": 0, "changes": len(one.changes())})
            )
        return self.bundle

    def look(self, one: Run) -> None:
        """Every ten seconds: requests, and a copy of what is new, beside the training."""
        if time.monotonic() - self.looked < HUB_LOOK:
            return
        self.looked = time.monotonic()
        try:
            for path in self.api.list_repo_files(self.repo):
                if path.startswith("box/ask-"):
                    (self.bundle / path.removeprefix("box/")).touch()
                    self.api.delete_file(path, self.repo, commit_message="taken")
        except OSError as error:  # the Hub's own errors are; the next look tries again
            print(f"the Hub does not answer: {type(error).__name__}", file=sys.stderr)
        if self.copying is None or not self.copying.is_alive():
            self.copying = threading.Thread(target=backup.ensure_copied, args=(one,), daemon=True)
            self.copying.start()

    def finish(self, one: Run) -> None:
        """The last copy, tried until it is there: the result is nowhere else."""
        if self.copying is not None:
            self.copying.join()
        for wait in (0, 5, 20, 60, 120):
            time.sleep(wait)
            if backup.ensure_copied(one):
                return
        raise DeviceError(
            "The result could not be copied to the Hub.",
            f"Look whether {self.repo} may be written with this token.",
            "place",
        )


def main(words: list[str]) -> int:
    """Exit status: 0 the run is over, however it ended; 2 the order was refused, with an end event that says why."""

    def tell(line: str) -> None:
        print(line, flush=True)

    events_from = 0
    try:
        if words[0] == "--remove":
            _remove(Path(words[1]).expanduser())
        elif words[0] == "--hub":
            hub = Hub(words[1], words[2])
            relay(hub.unpack(), int(words[3]), 0, 0, tell, hub.look, hub.finish)
        else:
            events_from = int(words[2])
            relay(Path(words[0]).expanduser(), int(words[1]), events_from, int(words[3]), tell)
    except BrokenPipeError:
        return 1  # the connection was lost; the run goes on
    except OSError as error:
        if error.errno not in FULL:
            raise
        end = {
            "kind": "end",
            "at": time.time(),
            "state": "failed",
            "reason": "disk",
            "cause": "The disk of the computer it trains on is full.",
            "action": "Free some space there, then resume the run.",
        }
        tell(f"@event {events_from + 1} {json.dumps(end)}")
        return 2
    except StudioError as error:
        if words[0] == "--remove":
            print(error, file=sys.stderr)
            return 2
        end = {
            "kind": "end",
            "at": time.time(),
            "state": "failed",
            "cause": error.message,
            "action": error.hint,
            "reason": error.reason,
        }
        tell(f"@event {events_from + 1} {json.dumps(end)}")  # it never ran: this is all there is to tell
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
