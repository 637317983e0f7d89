"""A run's diary (events.jsonl) and the lock that means "alive".

One JSON object a line, always with `at` (seconds since 1970, UTC), `kind` and `attempt`; whole lines, appended with
one write each, so that a reader with a byte cursor never sees a half and a crash costs at most the line being written.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from pathlib import Path
from typing import Any

#  phase   {name, detail?, from_step?}  what the run is doing now; see PHASES
#  plan    {steps, epochs, rows, eval_rows, trainable, parameters, estimated_memory, …}  known before the first step
#  step    {step, epoch, loss, learning_rate, grad_norm, tokens, tokens_per_second, memory, seconds}
#  eval    {step, loss, best?}
#  sample  {step, prompt, answer}
#  saved   {step, path, what: "checkpoint" | "model", bytes}
#  note    {level: "info" | "warning" | "error", text, hint?}
#  end     {state, cause?, action?, code?, signal?, …}  the last line of an attempt
KINDS = ("phase", "plan", "step", "eval", "sample", "saved", "note", "end")

PHASES = ("queued", "starting", "fetching model", "reading data", "loading model", "probing", "training",
          "evaluating", "saving")

END_STATES = ("finished", "stopped", "failed")


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

    Raises ValueError for an unknown kind, OSError when the disk is full.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of event: {kind}")
    event = _plain({"at": round(time.time(), 3), "kind": kind, **fields})
    line = (json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(descriptor, line)
        if written != len(line):  # disk full in the middle: take the half back
            os.ftruncate(descriptor, size)
            raise OSError(28, "No space left on device", str(path))
    finally:
        os.close(descriptor)
    return event


def read(path: Path, cursor: int = 0, limit: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after `cursor` (bytes) and the new cursor. Lines that are no JSON object are passed over.

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
    events = []
    for line in data[:whole].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("kind") in KINDS:
            events.append(event)
    return events, cursor + whole


class Lock:
    """An exclusive flock on a file. The kernel frees it when the holder dies, however it dies."""

    def __init__(self, path: Path):
        self.path, self._descriptor = path, None

    def take(self, wait: float = 0.0) -> bool:
        """True once held; False when somebody else still holds it after `wait` seconds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(descriptor)
                    return False
                time.sleep(0.02)
            else:
                self._descriptor = descriptor
                return True

    def free(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        if not self.take(wait=30):
            raise TimeoutError(f"{self.path} is held by another process")
        return self

    def __exit__(self, *_: object) -> None:
        self.free()


def held(path: Path) -> bool:
    """Whether some process holds the lock. Asks with a shared lock, given back at once."""
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
