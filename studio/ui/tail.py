"""A run's events as the charts need them: columns of numbers that only grow, read once for all open pages."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import OrderedDict
from typing import Any

from studio import events
from studio.run import Run
from studio.runs import signs
from studio.runs.silence import silence
from studio.stage import METRICS

COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "memory", "time")
COMPARED = tuple(name for name in METRICS if name != "loss")  # more columns, of a run that compares answers
READ = 4_000_000  # bytes parsed at a time
KEPT = 24  # runs whose columns stay in memory
WHOLE, THIN = 60, 400  # steps that signs are told from: so many at the end, about so many of the rest
AGAIN = 4.0  # seconds until they are told again
NAN = float("nan")


def _known(value: float) -> float | None:
    return value if value == value else None


class Tail:
    """What has been read of one events.jsonl so far. Columns are doubles; not-a-number stands for unknown.

    generation changes when points that a page may already hold are gone: after a resume, or when the file was replaced.
    """

    def __init__(self, run: Run):
        self.run, self._lock = run, threading.Lock()
        self._inode, self._cursor, self._undone = 0, 0, 0
        self._signs: tuple[Any, list[dict[str, Any]]] = (None, [])
        self._signs_at = float("-inf")
        self._clear()

    def _clear(self) -> None:
        self.columns = {name: array("d") for name in COLUMNS}
        # every event that is no step, with the run's `time` and tokens at that moment
        self.others: list[dict[str, Any]] = []
        self._positions: list[int] = []  # where in events.jsonl each of `others` stands
        self._count = 0
        self.recent: list[tuple[int, dict[str, Any]]] = []  # (position, event) of the last steps
        self.peak: tuple[int, dict[str, Any]] | None = None  # of the step with the highest memory
        self._time = 0.0  # seconds of work
        self._before = None  # the last event since the training began
        self._attempt = None
        self._tokens, self._offset = 0.0, 0.0  # tokens of former attempts; what is added to this attempt's count
        self._cursor = 0

    @property
    def generation(self) -> str:
        return f"{self._inode}.{self._undone}"

    @property
    def points(self) -> int:
        return len(self.columns["step"])

    def refresh(self) -> Tail:
        """Take in what was appended since the last call. Safe from several threads."""
        with self._lock:
            try:
                found = os.stat(self.run.events_file)
            except FileNotFoundError:
                return self
            if found.st_ino != self._inode or found.st_size < self._cursor:
                self._undone = self._undone + 1 if found.st_ino == self._inode else 0
                self._inode = found.st_ino
                self._clear()
            while self._cursor < found.st_size:
                new, cursor = events.read(self.run.events_file, self._cursor, READ)
                if cursor == self._cursor:
                    break
                self._cursor = cursor
                for event in new:
                    self._take(event)
        return self

    def digest(self) -> list[dict[str, Any]]:
        """A shortened list of events that gives the same summary as the whole one: everything but most steps."""
        with self._lock:
            steps = ([self.peak] if self.peak and self.peak not in self.recent else []) + self.recent
            return [
                event
                for _, event in sorted(
                    [*zip(self._positions, self.others, strict=True), *steps], key=lambda pair: pair[0]
                )
            ]

    def rows(self, start: int, stop: int, stride: int = 1) -> list[list[float]]:
        """One list a column, of the points from start to stop."""
        with self._lock:
            return [column[start:stop:stride].tolist() for column in self.columns.values()]

    def signs(self) -> list[dict[str, Any]]:
        """Signs of trouble that hold now (studio/runs/signs.py), from the last steps and a sample of earlier ones."""
        with self._lock:
            mark = (self.generation, self.points, len(self.others))
            if self._signs[0] != mark and time.monotonic() - self._signs_at > AGAIN:
                self._signs_at = time.monotonic()
                count = self.points
                places = [*range(0, max(0, count - WHOLE), max(1, count // THIN)), *range(max(0, count - WHOLE), count)]
                step, loss, norm = (self.columns[name] for name in ("step", "loss", "grad_norm"))
                steps = [
                    {"kind": "step", "step": int(step[at]), "loss": _known(loss[at]), "grad_norm": _known(norm[at])}
                    for at in places
                ]
                if "accuracy" in self.columns:
                    for at, event in zip(places, steps, strict=True):
                        accuracy = _known(self.columns["accuracy"][at])
                        event |= {} if accuracy is None else {"preference": {"accuracy": accuracy}}
                history = [event for event in self.others if event["kind"] in ("plan", "eval", "sample")] + steps
                self._signs = (mark, [sign._asdict() for sign in signs.signs(history)])
            told = self._signs[1]
        return told + [sign._asdict() for sign in silence(self.run, self.digest())]

    # -- one event

    def _take(self, event: dict[str, Any]) -> None:
        self._count += 1
        kind = event["kind"]
        if kind == "phase":
            if event["name"] in ("queued", "starting") or event.get("attempt") != self._attempt:
                self._pause()
            if event["name"] == "training" and self._before is None:
                self._before = event
            if event.get("from_step") is not None:
                self._rewind(event["from_step"])
        self._attempt = event.get("attempt", self._attempt)
        if self._before is not None:
            self._time, self._before = self._time + events.seconds(self._before, event), event
        now = self._time
        if kind == "step":
            self._step(event, now)
            return
        if kind == "end":
            self._pause()
        self._positions.append(self._count)
        self.others.append({**event, "time": round(now, 2), "total": self._total()})

    def _pause(self) -> None:
        """Time between two attempts is no time of the run."""
        self._before = None
        self._tokens, self._offset = self._total(), None

    def _total(self) -> float:
        total = self.columns["tokens"][-1] if self.points else 0.0
        return total if total == total else 0.0

    def _step(self, event: dict[str, Any], now: float) -> None:
        columns = self.columns
        if self.points and event["step"] <= columns["step"][-1]:
            return  # no step counts twice
        tokens = event.get("tokens")
        if tokens is not None:
            if self._offset is None:  # a trainer may count on, or begin again at zero
                self._offset = self._tokens if tokens < self._tokens else 0.0
            tokens += self._offset
        compared = event.get("preference", {})
        if compared and not self.points:
            columns |= {name: array("d") for name in COMPARED}
        values = {**event, **compared, "tokens": tokens, "time": round(now, 2)}
        for name, column in columns.items():
            value = values.get(name)
            column.append(NAN if value is None else float(value))
        self.recent = [*self.recent[-11:], (self._count, event)]
        if event.get("memory") and (self.peak is None or event["memory"] > self.peak[1]["memory"]):
            self.peak = self._count, event

    def _rewind(self, step: int) -> None:
        """A resume goes on from `step`: what lay beyond did not count."""
        steps = self.columns["step"]
        keep = len(steps)
        while keep and steps[keep - 1] > step:
            keep -= 1
        later = [event for event in self.others if event.get("step") is not None and event["step"] > step]
        if keep == len(steps) and not later:
            return
        for column in self.columns.values():
            del column[keep:]
        remaining = [
            (position, event)
            for position, event in zip(self._positions, self.others, strict=True)
            if event not in later
        ]
        self._positions, self.others = [position for position, _ in remaining], [event for _, event in remaining]
        self.recent = [(position, event) for position, event in self.recent if event["step"] <= step]
        self._tokens, self._offset = self._total(), None
        self._undone += 1


class Tails:
    """One Tail a run, the most recently asked ones."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, run: Run) -> Tail:
        key = str(run.folder)
        with self._lock:
            tail = self._tails.pop(key, None) or Tail(run)
            self._tails[key] = tail
            while len(self._tails) > KEPT:
                self._tails.popitem(last=False)
        return tail.refresh()
