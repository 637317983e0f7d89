"""The log of operations on one file: append-only JSON Lines in the home, so a closed tab or killed page loses nothing.

A line is an operation, one of CONTROLS, or "saved". The revision is the number of whole lines; a change names the
revision it was made on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.data.dataset import Dataset
from studio.data.editing.operations import Step, operation
from studio.data.editing.rows import folder_of, rows_of
from studio.data.editing.scan import resolved
from studio.data.editing.state import State
from studio.errors import DataError
from studio.home import changing

CONTROLS = ("undo", "redo", "discard")


class StaleError(DataError):
    """The rows were changed elsewhere meanwhile."""


class Edits:
    """The log of one file. order: (source, format, mapping, encoding), as the file is read."""

    def __init__(self, dataset: Dataset, *order: Any):
        self.dataset = dataset
        self.folder = folder_of(dataset.fingerprint)
        self.file = self.folder / "log.jsonl"
        self.base = rows_of(dataset.source, dataset, *order)

    def state(self) -> State:
        """The current state. A line cut off by a crash does not count."""
        lines = _lines(self.file)
        return self._state(lines)

    def _state(self, lines: list[bytes]) -> State:
        cached = _cached_state.get(self.folder)
        if cached is not None and cached[0] == (len(lines), hash(lines[-1]) if lines else 0):
            return cached[1]
        state = State(self.base, *_replay(lines), len(lines))
        _cached_state.clear()
        _cached_state[self.folder] = ((len(lines), hash(lines[-1]) if lines else 0), state)
        return state

    def change(self, values: dict[str, Any], revision: int | None = None, fingerprint: str | None = None) -> State:
        """Apply an operation, or one of undo, redo and discard; returns the new state.

        revision, fingerprint: those the change was made on; None: the current ones. Raises StaleError where the rows
        were changed since, DataError where the change is impossible.
        """
        with changing(self.file):
            lines = _lines(self.file)
            state = self._state(lines)
            self.check_seen(state, revision, fingerprint)
            control = values.get("op") if isinstance(values, dict) else None
            if control in CONTROLS:
                if control == "redo" and not state.undone:
                    raise DataError("There is nothing to do again.", "", "op")
                if control != "redo" and not state.steps:
                    raise DataError("There is nothing to undo.", "", "op")
                line: dict[str, Any] = {"op": control}
            else:
                line = resolved(operation(values), state, self.dataset).model_dump(exclude_defaults=False)
            _append(self.file, lines, line)
        return self.state()

    def check_seen(self, state: State, revision: int | None, fingerprint: str | None) -> None:
        """Raise StaleError where the file, or the state of its rows, is no longer the one that was shown."""
        if fingerprint is not None and fingerprint != self.dataset.fingerprint:
            name, count = Path(self.dataset.source).name, pending(fingerprint)
            shown = "The rows are shown as they stand in the file now."
            raise StaleError(
                f"{name} holds other rows than those shown here: the file was written anew meanwhile, or is read "
                "another way. This change was not made.",
                f"{shown} {count:,} changes of the earlier rows are kept for when the earlier file is back."
                if count
                else shown,
                "fingerprint",
            )
        if revision is not None and revision != state.revision:
            raise StaleError(
                "These rows were changed in another tab or by another program since they were shown here; "
                "this change was not made.",
                "They are shown as they stand now: make the change again, if it is still wanted.",
                "revision",
            )

    @contextmanager
    def saving(self, revision: int | None, fingerprint: str | None) -> Iterator[tuple[State, dict[str, Any]]]:
        """(the state to save, what the log is to say of it), locked against changes meanwhile; they would be lost.

        Afterwards the log restarts and the cached rows are removed. Raises StaleError as `change`.
        """
        with changing(self.file):
            lines = _lines(self.file)
            state, about = self._state(lines), {"op": "saved"}
            self.check_seen(state, revision, fingerprint)
            yield state, about
            _append(self.file, lines, about)
        shutil.rmtree(self.folder / "rows", ignore_errors=True)


def pending(fingerprint: str) -> int:
    """How many operations on a file are not saved, without looking at its rows."""
    return len(_replay(_lines(folder_of(fingerprint) / "log.jsonl"))[0])


# the state that was folded last: what is asked next is mostly the same
_cached_state: dict[Path, tuple[tuple[int, int], State]] = {}


def _lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _append(file: Path, lines: list[bytes], line: dict[str, Any]) -> None:
    """Append a line and fsync. An incomplete last line of a killed process is overwritten."""
    size = sum(map(len, lines)) + len(lines)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as out:
        out.truncate(size)
        out.seek(size)
        out.write(json.dumps(line).encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def _replay(lines: list[bytes]) -> tuple[list[Step], list[Step]]:
    """(operations in effect, undone operations with the next one to redo last). Raises DataError for a damaged line."""
    steps: list[Step] = []
    undone: list[Step] = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            op = values["op"]
            if op == "undo":
                undone.append(steps.pop())
            elif op == "redo":
                steps.append(undone.pop())
            elif op == "discard":
                undone, steps = [*undone, *steps[::-1]], []
            elif op == "saved":
                steps, undone = [], []
            else:
                steps.append(operation(values))
                undone = []
        except (ValueError, LookupError, TypeError, DataError) as error:
            raise DataError(
                f"Line {number} of the changes of this file is damaged ({type(error).__name__}).",
                "Take that line and all after it out of the newest log.jsonl in the folder edits of the studio's home: "
                "the changes before it are kept.",
                "edits",
            ) from error
    return steps, undone
