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
from pathlib import Path
from typing import Any

from studio import bundle, json_text
from studio.errors import DeviceError, StudioError
from studio.events import KINDS
from studio.home import write_atomic
from studio.place import Bundle, Unreachable
from studio.run import WORKING, Run
from studio.runs import checkpoints, remote

WAITS = (1, 2, 5, 10, 20, 30)  # seconds before a lost connection is tried again; the last one stays
GIVE_UP_STOP = 120.0  # seconds a stop waits for a place that does not answer
LOST = "reconnecting"  # the phase while the place does not answer
GOES_ON = "What was begun there may go on: resume the run here, and it is taken up again."
FREE_THERE = "Free some space there (`df -h` shows it), then resume the run."


class Stopped(Exception):
    """The run was asked to stop before anything had begun at the place."""


class Follow:
    """One attempt at a place, from the first file sent to the end line."""

    def __init__(self, run: Run, attempt: int):
        self.run, self.place = run, run.config.place
        self.folder = run.folder / "remote"
        self.state_file = self.folder / "state.json"
        self.bundle = Bundle(run.id, self.folder / "box", attempt, lambda: bundle.seconds(run), self._told)
        self.known = {"log": 0, **json_text.read_or_default(self.state_file, {})}
        relayed = [event for event in run.events() if "relayed" in event]
        self.heard = max(
            (event["relayed"] for event in relayed), default=0
        )  # bytes of the run's events there that are here
        self.seen = {_key(event) for event in relayed}
        self.end: dict[str, Any] | None = None
        self.now = ""  # the phase it is in
        self.answered = remote.known(run)  # whether the place has ever answered
        self.begun = self.state_file.exists()  # whether a run there may go on by itself
        self.asked: str | None = None  # the stop that was passed on
        self.before = ""  # the phase in which the connection was lost
        self.unheard: float | None = None  # since when a stop has waited for an answer

    def carry_out(self) -> None:
        """Send, follow, fetch, end. Raises StudioError with the reason when it cannot."""
        self.phase("sending")
        bundle.pack(self.run, self.bundle.folder)
        self._reach(lambda: self.place.send(self.bundle))
        write_atomic(self.state_file, json.dumps(self.known))
        self.begun, tries = True, 0
        while self.end is None:
            try:
                for line in _beside(self.place.output(self.bundle, self.heard, self.known["log"])):
                    if line and tries:
                        tries = self._found_again()
                    self._take(line)
                    self._pass_on()
                if self.end is None:
                    raise DeviceError(
                        f"The studio at {self.place.address} ended without a word about the run.",
                        "The end of the log says what it printed.",
                        "place",
                    )
            except Unreachable as lost:
                self._wait(lost, tries)
                tries += 1
        self._fetch()
        shutil.rmtree(self.bundle.folder, ignore_errors=True)  # packed anew if the run goes on
        self.run.append("end", **self.end)

    def phase(self, name: str) -> None:
        self.now = name
        self.run.append("phase", name=name, attempt=self.bundle.attempt)

    def _told(self, phase: str, line: str) -> None:
        """What the place says while it is sent to. Raises Stopped where nothing has begun there and this run is asked to stop."""
        if not self.answered:
            remote.mark(self.run)
            self.answered = True
        if line:
            print(line, flush=True)
        if phase not in ("", self.now):
            self.phase(phase)
        if self.run.stop_request() and not self.state_file.exists():
            raise Stopped

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
                write_atomic(self.state_file, json.dumps(self.known))
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
        if kind == "phase":
            self.now = told["name"]
        told |= {"attempt": self.bundle.attempt, "relayed": offset}
        if kind == "end":
            full = (
                {"cause": f"The disk of {self.place.address} is full.", "action": FREE_THERE}
                if told.get("reason") == "disk"
                else {}
            )
            self.end = told | full
            return
        if kind == "saved":
            if told.get("what") == "model":
                return  # told when it is here
            told["path"] = f"{self.place.address}:{told.get('path')}"
        self.run.append(kind, **told)

    # -- what goes

    def _pass_on(self) -> None:
        """What this run is asked, to the place."""
        how = self.run.stop_request()
        words = sorted(self.run.take_requests()) + ([_word(how)] if how and how != self.asked else [])
        for word in words:
            try:
                self.place.ask(self.bundle, word)
                if how and word == _word(how):
                    self.asked = how
            except (Unreachable, StudioError) as lost:
                self.run.append(
                    "note",
                    level="warning",
                    attempt=self.bundle.attempt,
                    text=f"{lost} The request ({word}) could not be passed on yet; it is tried again.",
                )

    def _wait(self, lost: Unreachable, tries: int) -> None:
        """Until the next attempt to reach the place. A stop does not wait for ever."""
        if tries == 0:
            self.run.append(
                "note",
                level="warning",
                attempt=self.bundle.attempt,
                text=f"{lost} {'The run there goes on; the' if self.begun else 'The'} connection is tried again.",
            )
            if self.now in WORKING:
                self.before = self.now
                self.phase(LOST)
        now = time.monotonic()
        if self.run.stop_request():
            self.unheard = self.unheard or now
            if now - self.unheard > GIVE_UP_STOP:
                raise DeviceError(
                    f"{self.place.address} does not answer, so the run there could not be stopped.",
                    "It may still be running there. Resume the run here when the connection is back, then stop it.",
                    "place",
                )
        until = now + WAITS[min(tries, len(WAITS) - 1)]
        while time.monotonic() < until and not (self.run.stop_request() and self.unheard is None):
            time.sleep(0.2)

    def _found_again(self) -> int:
        """The place answers again after so many tries: none of them counts any more."""
        self.run.append(
            "note", level="info", attempt=self.bundle.attempt, text=f"The connection to {self.place.address} is back."
        )
        if self.now == LOST:
            self.phase(self.before)
        self.unheard = None
        return 0

    def _reach(self, do: Any) -> None:
        """Do something at the place, again while it does not answer. One that has never answered fails at once."""
        tries = 0
        while True:
            try:
                do()
                return self._found_again() if tries else None
            except Unreachable as lost:
                if not self.answered:
                    raise DeviceError(
                        f"{self.place.address} cannot be reached: {lost}",
                        "Check that it is on and that its name is right, then resume the run.",
                        "place",
                    ) from lost
                self._wait(lost, tries)
                tries += 1

    def _fetch(self) -> None:
        """The result, whole or not at all; a run that kept none there has none here."""
        if self.end["state"] not in ("finished", "stopped") or self.asked == "discard":
            return
        self.phase("fetching result")
        try:
            with checkpoints.replacing(self.run.result) as target:
                self._reach(lambda: self.place.fetch(self.bundle, target))
                if not (target / "manifest.json").is_file():
                    raise DeviceError("There is no result there.", "", "place")
        except StudioError:
            if self.end["state"] == "finished":
                raise
            return  # stopped before there was anything to keep
        self.run.append("saved", path=str(self.run.result), what="model", attempt=self.bundle.attempt)


def _key(event: dict[str, Any]) -> tuple[Any, ...]:
    """What tells an event from every other of its run: it may be told again after a break."""
    return event.get("at"), event.get("kind"), event.get("step"), event.get("name")


def _word(how: str) -> str:
    return {"discard": "discard", "pause": "pause"}.get(how, "stop")


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
        hint = f"{error.hint} {GOES_ON}" if follow.begun and follow.end is None else error.hint
        run.append("end", state="failed", cause=error.message, action=hint, reason=error.reason, attempt=attempt)
        return 1
    except Stopped:
        run.append("end", state="stopped", cause="Stopped before anything was trained.", attempt=attempt)
        return 0
    return 0 if follow.end and follow.end["state"] in ("finished", "stopped") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
