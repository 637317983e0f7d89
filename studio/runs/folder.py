"""A run's folder: its order, events, log, checkpoints and result. Everything about a run is read from it."""

from __future__ import annotations

import json
import os
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from studio import events, json_text
from studio.config import RunConfig, parse
from studio.data.editing.record import edit_summary
from studio.errors import OrderError, RunError
from studio.events import FULL
from studio.home import changing, folder_size, write_atomic
from studio.runs.state import STATE_EVENTS, derive_state

REQUESTS = ("save", "evaluate", "sample")  # what a living run can be asked to do after its step
RESERVE = 32_768  # bytes kept so that the end line fits on a full disk


class Run:
    """One run's folder: its order, events, log, checkpoints and result."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.dropped = 0  # events not written because the disk was full

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    # -- paths

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the supervisor."""
        return self.folder / "lock"

    @property
    def trainer_lock(self) -> Path:
        """Held by every process of the trainer, which inherit it."""
        return self.folder / "trainer.lock"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def start(self) -> Path:
        """A copy of the adapter that the order goes on from, where it names one."""
        return self.folder / "start"

    @property
    def result(self) -> Path:
        return self.folder / "model"

    def has_result(self) -> bool:
        """Whether the result is whole: its manifest is written last."""
        return (self.result / "manifest.json").is_file()

    # -- the order

    @cached_property
    def config(self) -> RunConfig:
        """The order with the changes recorded since. Raises RunError if config.yaml is missing or unreadable."""
        file = self.folder / "config.yaml"
        try:
            config = parse(file.read_text(encoding="utf-8"), where=str(file))
        except OrderError as error:
            raise RunError(
                f"The order of the run {self.id} cannot be read: {error.message}",
                "Another version of the studio wrote it, or it was changed by hand. Use that version, or start a new "
                "run with the same settings.",
                str(file),
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            hint = "Start a new run with the same settings."
            raise RunError(f"The run {self.id} has no readable config.yaml.", hint, str(file)) from error
        for change in self.changes():
            config = config.with_changes(**change["changes"])
        return config

    def changes(self) -> list[dict[str, Any]]:
        """Changes of the order since the start, oldest first: {at, why, changes}. config.yaml itself never changes."""
        return json_text.read_or_default(self.folder / "changes.json", [])

    def edited(self) -> list[dict[str, Any]]:
        """{source, from, counts, text} of each data file made in the editor; edited.json has the full records."""
        records = json_text.read_or_default(self.folder / "edited.json", [])
        return [{"source": record["source"], **edit_summary(record)} for record in records]

    def change(self, why: str, **sections: dict[str, Any]) -> None:
        """Record a change of the order for the next attempt. Raises OrderError if the result is invalid."""
        if self.config.combine:
            hint = "Combine its runs anew with other weights."
            raise RunError(f"{self.id} was combined, not trained: there is nothing to go on with.", hint, "run")
        if self.config.race:
            hint = "Go on with one of its settings as an ordinary run."
            raise RunError(f"{self.id} is a race: its settings are changed by a new one.", hint, "run")
        file = self.folder / "changes.json"
        with changing(file):
            self.__dict__.pop("config", None)  # another process may have changed it since it was read here
            self.config.with_changes(**sections)
            write_atomic(
                file,
                json.dumps([*self.changes(), {"at": round(time.time(), 3), "why": why, "changes": sections}], indent=1),
            )
            self.__dict__.pop("config", None)

    def label(self, **fields: Any) -> dict[str, Any]:
        """The run's label: name, note, star. Given fields are set first."""
        file = self.folder / "label.json"
        if not fields:
            return json_text.read_or_default(file, {})
        with changing(file):
            written = json_text.read_or_default(file, {}) | fields
            write_atomic(file, json.dumps(written, ensure_ascii=False))
        return written

    # -- events and state

    def events(self) -> list[dict[str, Any]]:
        return events.read(self.events_file)[0]

    def plan(self) -> dict[str, Any]:
        """The last plan event; {} before training has started."""
        return events.last(self.events_file, ("plan",)) or {}

    def alive(self) -> bool:
        """Whether the run's supervisor is alive: only it holds the lock."""
        return events.is_locked(self.lock)

    def state_event(self) -> dict[str, Any] | None:
        """The last phase or end event."""
        return events.last(self.events_file, STATE_EVENTS)

    def state(self, run_events: list[dict[str, Any]] | None = None, alive: bool | None = None) -> str:
        """One of STATES, from lock and events. run_events: read after `alive`, else an end in between looks lost."""
        alive = self.alive() if alive is None else alive
        state_event = self.state_event() if run_events is None else events.latest(run_events, *STATE_EVENTS)
        return derive_state(alive, state_event or self.implied_state_event(), self.stop_file.exists())

    def implied_state_event(self) -> dict[str, Any] | None:
        """In place of missing events: a run with a log was started and lost its events; without one it is queued."""
        return {"at": 0.0, "kind": "phase", "name": "starting"} if self.log.exists() else None

    def attempt(self) -> int:
        """The number of the latest attempt; 0 before the first."""
        return max((event.get("attempt") or 0 for event in self.events()), default=0)

    def append(self, kind: str, /, **fields: Any) -> None:
        """Append an event. On a full disk it is dropped and counted in the next one; the end event uses the reserve."""
        if self.dropped:
            fields["dropped"] = self.dropped
        try:
            events.append(self.events_file, kind, **fields)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if kind != "end":
                self.dropped += 1
                return
            self.release_reserve()
            events.append(self.events_file, kind, **fields)
        self.dropped = 0

    def note(self, text: str, hint: str = "", level: str = "warning", **fields: Any) -> None:
        """Append a sentence for who watches the run, with what can be done about it."""
        self.append("note", level=level, text=text, **fields, **({"hint": hint} if hint else {}))

    def allocate_reserve(self) -> None:
        """Allocate a file that makes room for the end event on a full disk."""
        try:
            (self.folder / ".reserve").write_bytes(os.urandom(RESERVE))
        except OSError:
            self.release_reserve()

    def release_reserve(self) -> None:
        (self.folder / ".reserve").unlink(missing_ok=True)

    # -- requests

    def request_stop(self, how: str | bool = "keep") -> None:
        """Write the stop file.

        keep: the trainer saves after its step and ends; discard (or True): it ends without a result; pause: as
        keep, then back into the queue; disk: as keep, because the disk is almost full.
        """
        if not isinstance(how, str):
            how = "discard" if how else "keep"
        write_atomic(self.stop_file, "" if how == "keep" else f"{how}\n")

    def stop_request(self) -> str | None:
        """keep, discard, pause or disk; None without a request."""
        try:
            return self.stop_file.read_text().strip() or "keep"
        except FileNotFoundError:
            return None

    def ask(self, what: str) -> None:
        """Ask a running run to do one of REQUESTS after its current step. Raises RunError."""
        if what not in REQUESTS:
            raise RunError(f"A run cannot be asked to {what}.", f"It can be asked to {', '.join(REQUESTS)}.", "what")
        if not self.alive():
            hint = "Only a running run can be asked."
            raise RunError(f"{self.id} is not running: it is {self.state()}.", hint, "run")
        (self.folder / f"ask-{what}").touch()

    def take_requests(self) -> set[str]:
        """Return and clear the requests made since the last call. Called by the trainer after each step."""
        requests = {what for what in REQUESTS if (self.folder / f"ask-{what}").exists()}
        for what in requests:
            (self.folder / f"ask-{what}").unlink(missing_ok=True)
        return requests

    def sizes(self) -> dict[str, int]:
        """Bytes on disk: checkpoints, model, the rest, and the total."""
        parts = {"checkpoints": folder_size(self.checkpoints), "model": folder_size(self.result)}
        total = folder_size(self.folder)
        return {**parts, "rest": total - sum(parts.values()), "total": total}

    def size(self) -> int:
        return self.sizes()["total"]
