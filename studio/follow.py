"""python -m studio.follow RUN-FOLDER: stands where the trainer would, for a run whose place is another computer.

It sends the order there, takes what the relay tells into this run's events.jsonl and log.txt, passes requests on, and fetches the
result. A lost connection is taken up again; the run there does not notice. What it knows lies in RUN/remote/, so that another
attempt goes on where this one was killed.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from studio import data, estimate, model, places
from studio.base import source
from studio.errors import DeviceError, StudioError
from studio.events import KINDS
from studio.home import write_whole
from studio.place import Box, Unreachable
from studio.run import Run
from studio.runs import checkpoints
from studio.tokens import Encoder

WAITS = (1, 2, 5, 10, 20, 30)  # seconds before a lost connection is tried again; the last one stays
GIVE_UP_STOP = 120.0  # seconds a stop waits for a place that does not answer


class Follow:
    """One attempt at a place, from the first file sent to the end line."""

    def __init__(self, run: Run, attempt: int):
        self.run, self.place = run, run.config.place
        self.folder = run.folder / "remote"
        self.state_file = self.folder / "state.json"
        self.box = Box(run.id, self.folder / "box", attempt, partial(_seconds, run))
        self.known = {"log": 0, **_json(self.state_file)}
        relayed = [event for event in run.events() if "relayed" in event]
        self.heard = max((event["relayed"] for event in relayed), default=0)  # bytes of the run's events there that are here
        self.seen = {_key(event) for event in relayed}
        self.end: dict[str, Any] | None = None
        self.asked: str | None = None  # the stop that was passed on
        self.unheard: float | None = None  # since when a stop has waited for an answer

    def carry_out(self) -> None:
        """Send, follow, fetch, end. Raises StudioError with the reason when it cannot."""
        self.phase("sending")
        pack(self.run, self.box.folder)
        self._reach(lambda: self.place.send(self.box), first=not self.state_file.exists())
        write_whole(self.state_file, json.dumps(self.known))
        tries = 0
        while self.end is None:
            try:
                for line in _beside(self.place.output(self.box, self.heard, self.known["log"])):
                    tries = 0 if line else tries
                    self._take(line)
                    self._pass_on()
                if self.end is None:
                    raise DeviceError(f"The studio at {self.place.address} ended without a word about the run.",
                                      "The end of the log says what it printed.", "place")
            except Unreachable as lost:
                self._wait(lost, tries)
                tries += 1
        self._fetch()
        shutil.rmtree(self.box.folder, ignore_errors=True)  # packed anew if the run goes on
        self.run.append("end", **self.end)

    def phase(self, name: str) -> None:
        self.run.append("phase", name=name, attempt=self.box.attempt)

    # -- what comes

    def _take(self, line: bytes) -> None:
        """A line of the relay into events or log; whatever else was printed there is output."""
        if not line:
            return
        kind, _, rest = line.partition(b" ")
        first, _, body = rest.partition(b" ")
        offset = int(first) if first.isdigit() else None
        if kind == b"@event" and offset is not None:
            self._event(json.loads(body), offset)
        elif kind == b"@log" and offset is not None:
            if offset > self.known["log"]:
                print(json.loads(body), end="", flush=True)
                self.known["log"] = offset
                write_whole(self.state_file, json.dumps(self.known))
        else:
            print(line.decode("utf-8", "replace"), flush=True)

    def _event(self, told: dict[str, Any], offset: int) -> None:
        """An event of the run there, once, as one of this run. Its end is kept until the result is here."""
        key, self.heard = _key(told), max(self.heard, offset)
        kind = told.pop("kind", None)
        if kind == "phase" and told.get("name") in ("queued", "starting"):
            self.end = None  # it goes on
            return
        if kind not in KINDS or key in self.seen:
            return
        self.seen.add(key)
        told |= {"attempt": self.box.attempt, "relayed": offset}
        if kind == "end":
            self.end = told
            return
        if kind == "saved":
            if told.get("what") == "model":
                return  # told when it is here
            told["path"] = f"{self.place.address}:{told.get('path')}"
        self.run.append(kind, **told)

    # -- what goes

    def _pass_on(self) -> None:
        """What this run is asked, to the place."""
        how = self.run.stop_asked()
        words = sorted(self.run.asked()) + ([_word(how)] if how and how != self.asked else [])
        for word in words:
            try:
                self.place.ask(self.box, word)
                if how and word == _word(how):
                    self.asked = how
            except Unreachable as lost:
                self.run.append("note", level="warning", attempt=self.box.attempt,
                                text=f"{lost} The request ({word}) could not be passed on yet; it is tried again.")

    def _wait(self, lost: Unreachable, tries: int) -> None:
        """Until the next attempt to reach the place. A stop does not wait for ever."""
        if tries == 0:
            self.run.append("note", level="warning", attempt=self.box.attempt,
                            text=f"{lost} The run there goes on; the connection is tried again.")
        now = time.monotonic()
        if self.run.stop_asked():
            self.unheard = self.unheard or now
            if now - self.unheard > GIVE_UP_STOP:
                raise DeviceError(f"{self.place.address} does not answer, so the run there could not be stopped.",
                                  "It may still be running there. Resume the run here when the connection is back, then stop it.", "place")
        until = now + WAITS[min(tries, len(WAITS) - 1)]
        while time.monotonic() < until and not (self.run.stop_asked() and self.unheard is None):
            time.sleep(0.2)

    def _reach(self, do: Any, first: bool) -> None:
        """Do something at the place, again while it does not answer. first: nothing was ever sent, so it fails at once."""
        tries = 0
        while True:
            try:
                return do()
            except Unreachable as lost:
                if first:
                    raise DeviceError(f"{self.place.address} cannot be reached: {lost}",
                                      "Check that it is on and that its name is right, then resume the run.", "place") from lost
                self._wait(lost, tries)
                tries += 1

    def _fetch(self) -> None:
        """The result, whole or not at all; a run that kept none there has none here."""
        if self.end["state"] not in ("finished", "stopped") or self.asked == "discard":
            return
        self.phase("fetching result")
        try:
            with checkpoints.replacing(self.run.result) as target:
                self._reach(lambda: self.place.fetch(self.box, target), first=False)
                if not (target / "manifest.json").is_file():
                    raise DeviceError("There is no result there.", "", "place")
        except StudioError:
            if self.end["state"] == "finished":
                raise
            return  # stopped before there was anything to keep
        self.run.append("saved", path=str(self.run.result), what="model", attempt=self.box.attempt)


def _key(event: dict[str, Any]) -> tuple[Any, ...]:
    """What tells an event from every other of its run: it may be told again after a break."""
    return event.get("at"), event.get("kind"), event.get("step"), event.get("name")


def pack(run: Run, folder: Path) -> None:
    """The box's files: order.yaml, changes.json, and under files/ what the order names on this computer (as hard links or copies)."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    plain = run.config.model_dump(mode="json", exclude_unset=True)
    plain.pop("place", None)
    plain["model"] = run.config.model.model_dump(mode="json", exclude_none=True)
    sources = [{**item.model_dump(), "source": _packed(item.source, folder)} for item in run.config.data.sources()]
    plain["data"]["train"] = sources[0]["source"] if isinstance(plain["data"]["train"], str) else sources
    if isinstance(plain["data"].get("eval"), str):
        plain["data"]["eval"] = _packed(plain["data"]["eval"], folder)
    if run.config.model.kind in ("folder", "gguf"):
        plain["model"]["source"] = _packed(plain["model"]["source"], folder)
    plain["name"] = run.id
    (folder / "order.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    (folder / "changes.json").write_text(json.dumps(run.changes()))


def _packed(source: str, folder: Path) -> str:
    """A file or folder of this computer into files/; a name of the Hub or a sample stays as it is."""
    path = Path(source).expanduser()
    if source.startswith("sample") or not path.exists():
        return source
    number = len(list((folder / "files").iterdir()))
    target = folder / "files" / f"{number}-{path.name}"
    if path.is_dir():
        shutil.copytree(path, target, copy_function=_link)
    else:
        _link(path, target)
    return f"files/{target.name}"


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def _word(how: str) -> str:
    return {"discard": "discard", "pause": "pause"}.get(how, "stop")


def _seconds(run: Run) -> float | None:
    """How long the run will take there, as far as that can be told from here: without the model's tokenizer every row counts as long."""
    order, rows = run.config, None
    try:
        device, folder = places.device_of(order.place), source.local(order.model)
        if device is None:
            return None
        if folder is not None and (folder / "tokenizer.json").is_file():
            rows = data.prepare(order.data, Encoder.of(order.data, folder, virtual=order.virtual_tokens), order.training.seed).statistics
        return estimate.estimate(model.facts_of(order.model), order, device, rows).seconds
    except StudioError:
        return None  # the order is refused there, with words


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _beside(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same lines, read by a thread: b"" at least twice a second, also while the connection is dead in the middle of a read."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=10_000)

    def read() -> None:
        try:
            for line in lines:
                ready.put(line)
            ready.put(StopIteration())
        except Exception as error:  # noqa: BLE001 - handed over, and raised by whoever takes the lines
            ready.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            found = ready.get(timeout=0.5)
        except queue.Empty:
            yield b""
            continue
        if isinstance(found, StopIteration):
            return
        if isinstance(found, Exception):
            raise found
        yield found


def main(folder: str) -> int:
    """Exit status as the trainer's: 0 an end line says finished or stopped, 1 it says failed and why."""
    run = Run(Path(folder))
    attempt = int(os.environ.get("STUDIO_ATTEMPT", 1))
    follow = Follow(run, attempt)
    try:
        follow.carry_out()
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        run.append("end", state="failed", cause=error.message, action=error.hint, reason=error.reason, attempt=attempt)
        return 1
    return 0 if follow.end and follow.end["state"] in ("finished", "stopped") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
