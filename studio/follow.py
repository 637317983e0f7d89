"""python -m studio.follow RUN-FOLDER: runs in place of the trainer for a run whose place is another computer.

It sends the bundle, copies the relay's lines into this run's events.jsonl and log.txt, forwards requests and
fetches the result. It reconnects after a lost connection, which does not affect the remote run. Its progress is
stored in RUN/remote/, so a later attempt continues where a killed one stopped.
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
from studio.runs import remote, results

RETRY_DELAYS = (1, 2, 5, 10, 20, 30)  # seconds before a lost connection is tried again; the last one stays
STOP_TIMEOUT = 120.0  # seconds a stop waits for a place that does not answer
RECONNECTING = "reconnecting"  # the phase while the place does not answer
GOES_ON = "What was begun there may go on: resume the run here, and it is taken up again."
FREE_THERE = "Free some space there (`df -h` shows it), then resume the run."


class Stopped(Exception):
    """The run was asked to stop before anything had started at the place."""


class Follow:
    """One attempt at a place, from the first file sent to the end line."""

    def __init__(self, run: Run, attempt: int):
        self.run, self.place = run, run.config.place
        self.folder = run.folder / "remote"
        self.state_file = self.folder / "state.json"
        self.bundle = Bundle(run.id, self.folder / "box", attempt, lambda: bundle.seconds(run), self._on_progress)
        self.offsets = {"log": 0, **json_text.read_or_default(self.state_file, {})}
        relayed = [event for event in run.events() if "relayed" in event]
        # bytes of the remote events.jsonl that were copied
        self.events_offset = max((event["relayed"] for event in relayed), default=0)
        self.received = {_event_key(event) for event in relayed}
        self.end: dict[str, Any] | None = None
        self.phase_name = ""  # the current phase
        self.answered = remote.known(run)  # whether the place has ever answered
        self.started = self.state_file.exists()  # whether the remote run may be in progress
        self.forwarded_stop: str | None = None  # the stop mode that was forwarded
        self.interrupted_phase = ""  # the phase in which the connection was lost
        self.unanswered_since: float | None = None  # monotonic time since when a stop request is unanswered

    def execute(self) -> None:
        """Send the bundle, follow the run, fetch the result and write the end event. Raises StudioError."""
        self.phase("sending")
        bundle.pack(self.run, self.bundle.folder)
        self._retry(lambda: self.place.send(self.bundle))
        write_atomic(self.state_file, json.dumps(self.offsets))
        self.started, tries = True, 0
        while self.end is None:
            try:
                for line in _read_in_thread(self.place.output(self.bundle, self.events_offset, self.offsets["log"])):
                    if tries and line.startswith(b"@"):  # any other line may be ssh's own: why it cannot connect
                        tries = self._reconnected()
                    self._handle_line(line)
                    self._forward_requests()
                if self.end is None:
                    message = f"The studio at {self.place.address} ended without a word about the run."
                    hint = "The end of the log says what it printed."
                    raise DeviceError(message, hint, "place")
            except Unreachable as lost:
                self._wait_to_reconnect(lost, tries)
                tries += 1
        self._fetch()
        shutil.rmtree(self.bundle.folder, ignore_errors=True)  # packed anew if the run goes on
        self.run.append("end", **self.end)

    def phase(self, name: str) -> None:
        self.phase_name = name
        self.run.append("phase", name=name, attempt=self.bundle.attempt)

    def _on_progress(self, phase: str, line: str) -> None:
        """Record progress of Place.send. Raises Stopped if a stop is requested before the remote run has started."""
        if not self.answered:
            remote.mark(self.run)
            self.answered = True
        if line:
            print(line, flush=True)
        if phase not in ("", self.phase_name):
            self.phase(phase)
        if self.run.stop_request() and not self.state_file.exists():
            raise Stopped

    # -- from the place

    def _handle_line(self, line: bytes) -> None:
        """Copy a relay line into events or log; any other line is printed as output."""
        if line in (b"", b"@ready"):
            return
        kind, _, rest = line.partition(b" ")
        first, _, body = rest.partition(b" ")
        offset = int(first) if first.isdigit() else None
        if kind == b"@event" and offset is not None:
            self._handle_event(json.loads(body), offset)
        elif kind == b"@log" and offset is not None:
            if offset > self.offsets["log"]:
                print(json.loads(body), end="", flush=True)
                self.offsets["log"] = offset
                write_atomic(self.state_file, json.dumps(self.offsets))
        else:
            print(line.decode("utf-8", "replace"), flush=True)

    def _handle_event(self, event: dict[str, Any], offset: int) -> None:
        """Append a remote event once to this run. The end event is held back until the result has been fetched."""
        key, self.events_offset = _event_key(event), max(self.events_offset, offset)
        kind = event.pop("kind", None)
        if kind == "phase" and event.get("name") in ("queued", "starting"):
            self.end = None  # the run was resumed
            return
        if kind not in KINDS or key in self.received:
            return
        self.received.add(key)
        if kind == "phase":
            self.phase_name = event["name"]
        event |= {"attempt": self.bundle.attempt, "relayed": offset}
        if kind == "end":
            self.end = event
            if event.get("reason") == "disk":
                self.end |= {"cause": f"The disk of {self.place.address} is full.", "action": FREE_THERE}
            return
        if kind == "saved":
            if event.get("what") == "model":
                return  # reported after it has been fetched
            event["path"] = f"{self.place.address}:{event.get('path')}"
        self.run.append(kind, **event)

    # -- to the place

    def _forward_requests(self) -> None:
        """Forward this run's requests to the place."""
        stop_mode = self.run.stop_request()
        requests = sorted(self.run.take_requests())
        if stop_mode and stop_mode != self.forwarded_stop:
            requests.append(_stop_request_word(stop_mode))
        for word in requests:
            try:
                self.place.ask(self.bundle, word)
                if stop_mode and word == _stop_request_word(stop_mode):
                    self.forwarded_stop = stop_mode
            except (Unreachable, StudioError) as lost:
                text = f"{lost} The request ({word}) could not be passed on yet; it is tried again."
                self.run.note(text, attempt=self.bundle.attempt)

    def _wait_to_reconnect(self, lost: Unreachable, tries: int) -> None:
        """Wait before the next attempt at the place. Raises DeviceError once a stop has waited STOP_TIMEOUT seconds."""
        if tries == 0:
            text = f"{lost} {'The run there goes on; the' if self.started else 'The'} connection is tried again."
            self.run.note(text, attempt=self.bundle.attempt)
            if self.phase_name in WORKING:
                self.interrupted_phase = self.phase_name
                self.phase(RECONNECTING)
        now = time.monotonic()
        if self.run.stop_request():
            self.unanswered_since = self.unanswered_since or now
            if now - self.unanswered_since > STOP_TIMEOUT:
                message = f"{self.place.address} does not answer, so the run there could not be stopped."
                hint = "It may still be running there. Resume the run here when the connection is back, then stop it."
                raise DeviceError(message, hint, "place")
        until = now + RETRY_DELAYS[min(tries, len(RETRY_DELAYS) - 1)]
        while time.monotonic() < until and not (self.run.stop_request() and self.unanswered_since is None):
            time.sleep(0.2)

    def _reconnected(self) -> int:
        """Note that the place answers again. Returns the new number of failed tries: 0."""
        text = f"The connection to {self.place.address} is back."
        self.run.note(text, level="info", attempt=self.bundle.attempt)
        if self.phase_name == RECONNECTING:
            self.phase(self.interrupted_phase)
        self.unanswered_since = None
        return 0

    def _retry(self, do: Any) -> None:
        """Call `do`, and again while the place does not answer. Raises DeviceError if it has never answered."""
        tries = 0
        while True:
            try:
                do()
                return self._reconnected() if tries else None
            except Unreachable as lost:
                if not self.answered:
                    hint = "Check that it is on and that its name is right, then resume the run."
                    raise DeviceError(f"{self.place.address} cannot be reached: {lost}", hint, "place") from lost
                self._wait_to_reconnect(lost, tries)
                tries += 1

    def _fetch(self) -> None:
        """Fetch the result, complete or not at all. A stopped run may have none."""
        if self.end["state"] not in ("finished", "stopped") or self.forwarded_stop == "discard":
            return
        self.phase("fetching result")
        try:
            with results.replacing(self.run.result) as target:
                self._retry(lambda: self.place.fetch(self.bundle, target))
                if not (target / "manifest.json").is_file():
                    raise DeviceError("There is no result there.", "", "place")
        except StudioError:
            if self.end["state"] == "finished":
                raise
            return  # stopped before there was anything to keep
        self.run.append("saved", path=str(self.run.result), what="model", attempt=self.bundle.attempt)


def _event_key(event: dict[str, Any]) -> tuple[Any, ...]:
    """Identifies an event within its run, since the relay may repeat events after a reconnect."""
    return event.get("at"), event.get("kind"), event.get("step"), event.get("name")


def _stop_request_word(stop_mode: str) -> str:
    return {"discard": "discard", "pause": "pause"}.get(stop_mode, "stop")


def _read_in_thread(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same lines, read by a thread; b"" at least twice a second, even while a read hangs."""
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
            item = ready.get(timeout=0.5)
        except queue.Empty:
            yield b""
            continue
        if isinstance(item, StopIteration):
            return
        if isinstance(item, Exception):
            raise item
        yield item


def main(folder: str) -> int:
    """Exit status, as of the trainer: 0 if the run finished or was stopped, 1 if it failed."""
    run = Run(Path(folder))
    attempt = int(os.environ.get("STUDIO_ATTEMPT", 1))
    follow = Follow(run, attempt)
    try:
        follow.execute()
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        hint = f"{error.hint} {GOES_ON}" if follow.started and follow.end is None else error.hint
        run.append("end", state="failed", cause=error.message, action=hint, reason=error.reason, attempt=attempt)
        return 1
    except Stopped:
        run.append("end", state="stopped", cause="Stopped before anything was trained.", attempt=attempt)
        return 0
    return 0 if follow.end and follow.end["state"] in ("finished", "stopped") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
