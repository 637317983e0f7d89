"""A run's events (events.jsonl), and Lock, whose holder is alive.

One JSON object a line, always with `at` (seconds since 1970, UTC, for display), `monotonic` (seconds of this
computer's monotonic clock, for durations: see `seconds`) and `kind`; a run's events also have `attempt`. Each
line is appended by a single write under a lock of the file: supervisor and trainer can both write, a reader with
a byte cursor never sees half a line, and a crash loses at most the line being written.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio import crash
from studio.home import flock

#  phase   {name, detail?, from_step?}  the current activity; see PHASES. `queued` carries {order, hold?}
#  plan    {steps, epochs, rows, eval_rows, trainable, parameters, estimated_memory, …}  known before the first step
#  step    {step, epoch, loss, learning_rate, grad_norm, tokens, tokens_per_second, memory, seconds, contestant?,
#          preference?}  preference: of a stage that compares answers, by the names of stage.METRICS
#  eval    {step, loss, accuracy?, best?, table?, preference?}  of held-out tokens; accuracy: share that is the
#          likeliest token; table: of a combination (worker/combine.py) or a race (race.new_row)
#  forgetting  {step, loss_rise, kl, verdict, low, high, items, kinds, final?, advice?}  against the base
#  sample  {step, prompt, answer, reference?, cut?}  cut: by the share of time that samples may take
#  rollout  {step, prompt, reference, answers: [{text, reward, rewards: {name: value}, advantage, ended, cut}]}
#          answers that a stage has the model write to one of a step's prompts
#  saved   {step, path, what: "checkpoint" | "model" | "export" | "upload", bytes?}
#  note    {level: "info" | "warning" | "error", text, hint?}
#  end     {state, cause?, action?, code?, signal?, plan?, …}  the last line of an attempt; plan: plan.conclude
KINDS = ("phase", "plan", "step", "eval", "forgetting", "sample", "rollout", "saved", "note", "end")

PHASES = (
    "queued", "starting", "sending", "setting up", "reconnecting", "fetching model", "reading data", "loading model",
    "probing", "training", "evaluating", "saving", "fetching result"
)  # fmt: skip

END_STATES = ("finished", "stopped", "failed", "lost")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # errors of a full or failing disk
_FSYNCED = ("saved", "end")  # kinds that are synced to disk before append returns
_LOCK_TIMEOUT = 2.0  # seconds to wait for the other writer, which may be a stopped process


def _without_nan(value: Any) -> Any:
    """NaN and infinity become None at any depth, since JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


def append(path: Path, kind: str, /, **fields: Any) -> dict[str, Any]:
    """Append one event and return it. An incomplete last line left by a crash is ended first.

    Raises ValueError for an unknown kind, OSError if the disk is full (the file is then unchanged).
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of event: {kind}")
    event = _without_nan({"at": round(time.time(), 3), "monotonic": round(time.monotonic(), 3), "kind": kind, **fields})
    line = (json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        locked = flock(descriptor, _LOCK_TIMEOUT)  # a single append is atomic without it
        if _is_torn(descriptor):
            line = b"\n" + line
        if crash.is_due("events.half"):
            os.write(descriptor, line[: len(line) // 2])
            crash.kill_self()
        size = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)
        if written != len(line):  # disk full: remove the partial line, unless another may have written behind it
            if locked:
                os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if kind in _FSYNCED:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)  # releases the lock too
    crash.point(f"events.{fields.get('name', kind)}")
    return event


def seconds(before: dict[str, Any], after: dict[str, Any] | None = None) -> float:
    """Seconds from one event of an attempt to a later one (None: to now), at least 0.

    Uses the monotonic clock, which clock adjustments do not affect; `at` for files of older versions without it.
    """
    key, now = "at", time.time
    if _has_clock(before) and (after is None or _has_clock(after)):
        key, now = "monotonic", time.monotonic
    return max(0.0, (now() if after is None else after[key]) - before[key])


def _has_clock(event: dict[str, Any]) -> bool:
    return isinstance(event.get("monotonic"), (int, float))


def close_torn(path: Path) -> None:
    """Add the newline that a crash left off the last line; the line is read from then on if otherwise complete."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        flock(descriptor, _LOCK_TIMEOUT)
        if _is_torn(descriptor):
            os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)


def _is_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def read(path: Path, cursor: int = 0, limit: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return the events in the complete lines after byte `cursor`, and the new cursor. Invalid lines are skipped.

    limit: bytes to read at most; a caller loops until the cursor no longer moves.
    """
    try:
        with open(path, "rb") as file:
            file.seek(cursor)
            data = file.read() if limit is None else file.read(limit)
            if limit is not None and b"\n" not in data:
                data += file.readline()
    except FileNotFoundError:
        return [], cursor
    end = data.rfind(b"\n") + 1
    return [event for line in data[:end].split(b"\n") if (event := _event(line)) is not None], cursor + end


def perplexity(event: Mapping[str, Any]) -> float | None:
    """exp(loss per token) of an "eval" event; None where the loss is one of compared answers."""
    return None if "preference" in event else math.exp(min(event["loss"], 50))


def latest(events: Sequence[dict[str, Any]], *kinds: str) -> dict[str, Any]:
    """The last of these events that is of one of the kinds; {} if there is none."""
    return next((event for event in reversed(events) if event["kind"] in kinds), {})


def last(path: Path, kinds: tuple[str, ...], block: int = 65536) -> dict[str, Any] | None:
    """The last event of one of these kinds, read backwards from the end of the file in growing blocks."""
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


_NUMBER = (int, float, type(None))
# fields that are computed with: a line in which one is anything else is damaged, or another program's
_NUMBERS = (
    *("monotonic", "attempt", "order", "steps", "epoch", "epochs", "from_step", "learning_rate", "grad_norm"),
    *("tokens", "tokens_per_second", "memory", "peak_memory", "estimated_memory", "trainable", "parameters"),
)
_TABLES = ("data", "preference")


def _event(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is incomplete, not an event, or lacks fields that its kind needs."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("at"), (int, float)):
        return None
    if any(not isinstance(event.get(name), _NUMBER) for name in _NUMBERS):
        return None
    if any(not isinstance(event.get(name) or {}, dict) for name in _TABLES):
        return None
    match event.get("kind"):
        case "phase":
            return event if isinstance(event.get("name"), str) else None
        case "end":
            return event if event.get("state") in END_STATES else None
        case "step" | "eval":
            measured = "loss" in event and isinstance(event["loss"], _NUMBER)  # a plan's loss is a name: chunked
            return event if isinstance(event.get("step"), int) and measured else None
        case kind:
            return event if kind in KINDS else None


class Lock:
    """An exclusive flock on a file, which the kernel releases when its holder dies.

    The lock belongs to the open file: a child that inherits `descriptor` holds it too, until all have closed it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None

    def acquire(self, wait: float = 0.0, shared: bool = False) -> bool:
        """Acquire the lock; False if it is still held after `wait` seconds. shared: is_locked() does not report it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not flock(descriptor, wait, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, poll=0.02):
            os.close(descriptor)
            return False
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
    """Whether a process holds the lock exclusively. Probes with a shared lock that is released at once."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not flock(descriptor, 0, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
