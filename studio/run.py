"""A run is a folder. Run reads it and answers; whoever can read the folder knows all there is to know."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import Any

from studio import crash, events, json_text
from studio.config import RunConfig, parse
from studio.data.editing.record import edit_summary, record_of
from studio.errors import RunError
from studio.events import FULL, Lock
from studio.home import changing, folder_size, fsync_path, inside, slug, subfolder, write_atomic
from studio.runs import recovery
from studio.runs.summary import ALIVE, STATE_EVENTS, STATES, WORKING, current_events, derive_state, phase, summary

__all__ = [
    "ALIVE",
    "REQUESTS",
    "STATES",
    "WORKING",
    "Run",
    "create",
    "current_events",
    "delete",
    "find",
    "is_run",
    "phase",
    "runs",
    "summary",
    "sweep",
]

REQUESTS = ("save", "evaluate", "sample")  # what a living run can be asked to do after its step
RESERVE = 32_768  # bytes kept so that the end line fits on a full disk


class Run:
    """One run's folder: its order, diary, log, checkpoints and result."""

    def __init__(self, folder: Path):
        self.folder, self.dropped = Path(folder), 0

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    # -- where things are

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
        """Held by every process of the trainer: they inherit it."""
        return self.folder / "trainer.lock"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def result(self) -> Path:
        return self.folder / "model"

    # -- the order

    @cached_property
    def config(self) -> RunConfig:
        """The order as given, with the changes recorded since. Raises RunError when the file is gone or unreadable."""
        file = self.folder / "config.yaml"
        try:
            config = parse(file.read_text(), where=str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(
                f"The run {self.id} has no readable config.yaml.", "Start a new run with the same settings.", str(file)
            ) from error
        for change in self.changes():
            config = config.with_changes(**change["changes"])
        return config

    def changes(self) -> list[dict[str, Any]]:
        """What was changed after the start, oldest first: {at, why, changes: {section: {key: value}}}. config.yaml itself never changes."""
        return json_text.read_or_default(self.folder / "changes.json", [])

    def edited(self) -> list[dict[str, Any]]:
        """Of the data files that were made in the editor: {source, from, counts, text}. The whole records, with their logs, stand in edited.json."""
        return [
            {"source": one["source"], **edit_summary(one)}
            for one in json_text.read_or_default(self.folder / "edited.json", [])
        ]

    def change(self, why: str, **sections: dict[str, Any]) -> None:
        """Record a change of the order for the next attempt. Raises OrderError when the result is no order."""
        if self.config.combine:
            raise RunError(
                f"{self.id} was combined, not trained: there is nothing to go on with.",
                "Combine its runs anew with other weights.",
                "run",
            )
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
        """What its owner wrote on the run: name, note, star; given fields are set first."""
        file = self.folder / "label.json"
        if not fields:
            return json_text.read_or_default(file, {})
        with changing(file):
            written = json_text.read_or_default(file, {}) | fields
            write_atomic(file, json.dumps(written, ensure_ascii=False))
        return written

    # -- what it says

    def events(self) -> list[dict[str, Any]]:
        return events.read(self.events_file)[0]

    def alive(self) -> bool:
        """Whether the run's supervisor lives: it alone holds the lock."""
        return events.is_locked(self.lock)

    def state_event(self) -> dict[str, Any] | None:
        """The last phase or end."""
        return events.last(self.events_file, STATE_EVENTS)

    def state(self, diary: list[dict[str, Any]] | None = None, alive: bool | None = None) -> str:
        """One of STATES, from lock and diary. diary: read after `alive` was asked, else a run that ends just now may look lost."""
        alive = self.alive() if alive is None else alive
        state_event = (
            self.state_event()
            if diary is None
            else next((event for event in reversed(diary) if event["kind"] in STATE_EVENTS), None)
        )
        return derive_state(alive, state_event or self.implied_state_event(), self.stop_file.exists())

    def implied_state_event(self) -> dict[str, Any] | None:
        """For a diary that says nothing: a run that has a log has been started, so its diary was taken away; else it waits."""
        return {"at": 0.0, "kind": "phase", "name": "starting"} if self.log.exists() else None

    def attempt(self) -> int:
        """The number of the latest attempt; 0 before the first."""
        return max((event.get("attempt") or 0 for event in self.events()), default=0)

    def append(self, kind: str, /, **fields: Any) -> None:
        """Write into the diary. On a full disk an event is dropped and counted in the next one; the end line always gets in."""
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
            self.give_up_reserve()
            events.append(self.events_file, kind, **fields)
        self.dropped = 0

    def take_reserve(self) -> None:
        """Keep a little room for the end line."""
        try:
            (self.folder / ".reserve").write_bytes(os.urandom(RESERVE))
        except OSError:
            self.give_up_reserve()

    def give_up_reserve(self) -> None:
        (self.folder / ".reserve").unlink(missing_ok=True)

    # -- what it is asked

    def request_stop(self, how: str | bool = "keep") -> None:
        """Leave the stop file. keep: the trainer ends after its step and saves; discard (or True): ends without a result; pause: as keep, then
        back into the queue; disk: as keep, because the disk is almost full."""
        word = "discard" if how is True else "keep" if how is False else how
        write_atomic(self.stop_file, "" if word == "keep" else f"{word}\n")

    def stop_request(self) -> str | None:
        """keep, discard, pause or disk; None when nobody asked."""
        try:
            return self.stop_file.read_text().strip() or "keep"
        except FileNotFoundError:
            return None

    def ask(self, what: str) -> None:
        """Ask a living run for something after its present step: one of ASKS."""
        if what not in REQUESTS:
            raise RunError(f"A run cannot be asked to {what}.", f"It can be asked to {', '.join(REQUESTS)}.", "what")
        if not self.alive():
            raise RunError(
                f"{self.id} is not running: it is {self.state()}.", "Only a running run can be asked.", "run"
            )
        (self.folder / f"ask-{what}").touch()

    def take_requests(self) -> set[str]:
        """For the trainer, after each step: what was asked since the last look. The asking files are taken away."""
        found = {what for what in REQUESTS if (self.folder / f"ask-{what}").exists()}
        for what in found:
            (self.folder / f"ask-{what}").unlink(missing_ok=True)
        return found

    def sizes(self) -> dict[str, int]:
        """Bytes on disk: checkpoints, model, the rest, and the total."""
        parts = {"checkpoints": folder_size(self.checkpoints), "model": folder_size(self.result)}
        total = folder_size(self.folder)
        return {**parts, "rest": total - sum(parts.values()), "total": total}

    def size(self) -> int:
        return self.sizes()["total"]


def _edited(config: RunConfig) -> list[dict[str, Any]]:
    """Of the data files that were made in the editor, the records of what they were made from, each with its "source"."""
    sections = [section for section, _ in config.data_sections()]
    named = [one.source for section in sections for one in section.sources()]
    named += [section.eval for section in sections if isinstance(section.eval, str)]
    return [
        {"source": source, **found}
        for source in dict.fromkeys(named)
        if (found := record_of(Path(source).expanduser()))
    ]


def create(config: RunConfig, model_label: str | None = None, order: float | None = None) -> Run:
    """Make a run's folder with its order in it, whole or not at all. Its first event says that it is queued.

    Relative paths are written in full, as the caller's folder makes them. order: its place in the queue; the smallest goes first, the
    time of day when left out.
    """
    label = model_label or Path(config.model.source).stem.lower()
    name = slug(config.name or f"{config.method.name}-{label}", "run")
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M")
    with Lock(subfolder("locks") / "create"):
        temporary = subfolder("runs") / f".{os.getpid()}-{time.monotonic_ns()}.tmp"
        temporary.mkdir()
        (temporary / "config.yaml").write_text(config.with_absolute_paths().to_yaml())
        if edited := _edited(config):
            (temporary / "edited.json").write_text(json.dumps(edited), encoding="utf-8")
        events.append(
            temporary / "events.jsonl", "phase", name="queued", attempt=0, order=time.time() if order is None else order
        )
        for file in ("config.yaml", "events.jsonl"):
            fsync_path(temporary / file)  # an fsync: what waits survives a power cut
        crash.point("create.written")
        for extra in range(1, 1000):
            folder = subfolder("runs") / (f"{stamp}-{name}" if extra == 1 else f"{stamp}-{name}-{extra}")
            try:
                os.rename(temporary, folder)  # fails when a non-empty folder stands there
            except OSError:
                continue
            fsync_path(folder.parent)
            crash.point("create.renamed")
            return Run(folder)
        shutil.rmtree(temporary)
    raise RunError("A thousand runs of one name in one minute.", "Give another name.", "name")


def sweep() -> None:
    """Remove what a crash left half made or half deleted."""
    with Lock(subfolder("locks") / "create"):
        for path in subfolder("runs").iterdir():
            if path.name.startswith(".") and path.name.endswith((".tmp", ".deleted")):
                shutil.rmtree(path, ignore_errors=True)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it has an order, or at least a diary that outlived it."""
    return (folder / "config.yaml").is_file() or (folder / "events.jsonl").is_file()


def runs() -> list[Run]:
    """All runs, newest first."""
    folders = [path for path in subfolder("runs").iterdir() if not path.name.startswith(".") and is_run(path)]
    return [Run(path) for path in sorted(folders, key=lambda path: path.name, reverse=True)]


def find(name: str) -> Run:
    """A run by its id, by a unique part of it, or `last`. Raises RunError that lists near ones."""
    everything = runs()
    if name == "last" and everything:
        return max(everything, key=lambda run: _made(run.folder))
    exact = [run for run in everything if run.id == name]
    partly = exact or [run for run in everything if name and name in run.id]
    if len(partly) == 1:
        return partly[0]
    if len(partly) > 1:
        raise RunError(
            f"{len(partly)} runs have {name!r} in their name: {', '.join(run.id for run in partly[:5])}.",
            "Give more of the name.",
            "run",
        )
    near = sorted(
        everything,
        key=lambda run: max(SequenceMatcher(None, name, part).ratio() for part in (run.id, run.id[16:])),
        reverse=True,
    )
    known = ", ".join(run.id for run in near[:5]) or "there is none yet"
    raise RunError(f"There is no run {name!r}.", f"Runs: {known}.", "run")


def _made(folder: Path) -> int:
    """When its order was written; 0 when that is gone."""
    file = folder / "config.yaml"
    return file.stat().st_mtime_ns if file.exists() else 0


def delete(run: Run, keep_files: bool = False) -> int:
    """Remove a run that is not alive; returns its bytes. The folder is renamed first, so no half of it is ever listed.

    keep_files: it only leaves the list; its folder moves to STUDIO_HOME/removed.
    """
    with recovery.alone(run, wait=2) as mine:
        if not mine or not recovery.end_orphans(run):
            raise RunError(f"{run.id} is still running.", "Stop it first.", "run")
        size = run.size()
        if keep_files:
            os.rename(run.folder, inside(subfolder("removed"), run.id))
            return size
        grave = inside(subfolder("runs"), f".{run.id}.deleted")
        shutil.rmtree(grave, ignore_errors=True)
        os.rename(run.folder, grave)
        crash.point("delete.renamed")
        shutil.rmtree(grave)
        return size
