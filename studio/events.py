"""A run's diary (events.jsonl) and the lock that means "alive".

One JSON object a line, always with `at` (seconds since 1970, UTC: for display), `monotonic` (seconds of this computer's monotonic clock, for
durations: see `seconds`) and `kind`; a run's events also carry `attempt`. Whole lines,
appended with one write each under a lock of the file, so that supervisor and trainer can both write, a reader with a byte
cursor never sees a half, and a crash costs at most the line being written.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio import crash

#  phase   {name, detail?, from_step?}  what the run is doing now; see PHASES. `queued` carries {order, hold?}
#  plan    {steps, epochs, rows, eval_rows, trainable, parameters, estimated_memory, …}  known before the first step
#  step    {step, epoch, loss, learning_rate, grad_norm, tokens, tokens_per_second, memory, seconds}
#  eval    {step, loss, best?}
#  sample  {step, prompt, answer}
#  saved   {step, path, what: "checkpoint" | "model" | "export" | "upload", bytes?}
#  note    {level: "info" | "warning" | "error", text, hint?}
#  end     {state, cause?, action?, code?, signal?, …}  the last line of an attempt
KINDS = ("phase", "plan", "step", "eval", "sample", "saved", "note", "end")

PHASES = (
    "queued",
    "starting",
    "sending",
    "setting up",
    "reconnecting",
    "fetching model",
    "reading data",
    "loading model",
    "probing",
    "training",
    "evaluating",
    "saving",
    "fetching result",
)

END_STATES = ("finished", "stopped", "failed", "lost")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # errors of a disk that takes no more
_LASTING = ("saved", "end")  # kinds that are on the disk before append returns
_TURN_WAIT = 2.0  # seconds to wait for the other writer; it may be a stopped process that never gives the turn back


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def append(path: Path, kind: str, /, **fields: Any) -> dict[str, Any]:
    """Append one event and return it. A torn last line left by a crash is closed first.

    Raises ValueError for an unknown kind, OSError when the disk is full (the diary is then as it was).
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of event: {kind}")
    event = _plain({"at": round(time.time(), 3), "monotonic": round(time.monotonic(), 3), "kind": kind, **fields})
    line = (json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        alone = _turn(descriptor)
        if _torn(descriptor):
            line = b"\n" + line
        if crash.here("events.half"):
            os.write(descriptor, line[: len(line) // 2])
            crash.die()
        size = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)
        if written != len(
            line
        ):  # disk full in the middle: take the half back, unless another may have written behind it
            if alone:
                os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if kind in _LASTING:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)  # gives the turn back too
    crash.point(f"events.{fields.get('name', kind)}")
    return event


def seconds(before: dict[str, Any], after: dict[str, Any] | None = None) -> float:
    """Seconds from one event of an attempt to a later one (None: to now); never negative.

    By the monotonic clock, which no correction of the time of day moves; by `at` where an older diary has no other.
    """
    key, now = (
        ("monotonic", time.monotonic)
        if _has_clock(before) and (after is None or _has_clock(after))
        else ("at", time.time)
    )
    return max(0.0, (now() if after is None else after[key]) - before[key])


def _has_clock(event: dict[str, Any]) -> bool:
    return isinstance(event.get("monotonic"), (int, float))


def close_torn(path: Path) -> None:
    """End a last line that a crash left without its newline: if it was whole but for that, it counts from now on."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _turn(descriptor)
        if _torn(descriptor):
            os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)


def _turn(descriptor: int) -> bool:
    """Wait for the other writer; False when it did not come to an end (a single append is whole even then)."""
    until = time.monotonic() + _TURN_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        else:
            return True


def _torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def read(path: Path, cursor: int = 0, limit: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after `cursor` (bytes) and the new cursor. Lines that are no event are passed over.

    limit: at most that many bytes are read; a caller loops until the cursor stands still.
    """
    try:
        with open(path, "rb") as file:
            file.seek(cursor)
            data = file.read() if limit is None else file.read(limit)
            if limit is not None and b"\n" not in data:
                data += file.readline()
    except FileNotFoundError:
        return [], cursor
    whole = data.rfind(b"\n") + 1
    return [event for line in data[:whole].split(b"\n") if (event := _event(line)) is not None], cursor + whole


def latest(events: Sequence[dict[str, Any]], *kinds: str) -> dict[str, Any]:
    """The last of these events that is of one of the kinds; {} where there is none."""
    return next((event for event in reversed(events) if event["kind"] in kinds), {})


def last(path: Path, kinds: tuple[str, ...], block: int = 65536) -> dict[str, Any] | None:
    """The last event of one of these kinds, looked for from the end of the file in ever larger bites."""
    marks = [f'"{kind}"'.encode() for kind in kinds]
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            while True:
                start = max(0, size - block)
                file.seek(start)
                data = file.read(size - start)
                lines = data[: data.rfind(b"\n") + 1].split(b"\n")[1 if start else 0 :]
                for line in reversed(lines):
                    event = _event(line) if any(mark in line for mark in marks) else None
                    if event is not None and event["kind"] in kinds:
                        return event
                if start == 0:
                    return None
                block *= 8
    except FileNotFoundError:
        return None


def _event(line: bytes) -> dict[str, Any] | None:
    """A line as an event, or None for anything else: torn, foreign, or lacking what its kind needs."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("at"), (int, float)):
        return None
    match event.get("kind"):
        case "phase":
            return event if isinstance(event.get("name"), str) else None
        case "end":
            return event if event.get("state") in END_STATES else None
        case "step" | "eval":
            return event if isinstance(event.get("step"), int) and "loss" in event else None
        case kind:
            return event if kind in KINDS else None


class Lock:
    """An exclusive flock on a file. The kernel frees it when the holder dies, however it dies.

    The lock belongs to the open file: a child that inherits `descriptor` holds it too, and it is free when all have closed it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None

    def acquire(self, wait: float = 0.0, shared: bool = False) -> bool:
        """True once held; False when somebody else still holds it after `wait` seconds. shared: beside others that share, and unseen by held()."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(descriptor)
                    return False
                time.sleep(0.02)
            else:
                self.descriptor = descriptor
                return True

    def release(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> Lock:
        if not self.acquire(wait=60):
            raise TimeoutError(f"{self.path} is held by another process")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock for itself. Asks with a shared lock, given back at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
