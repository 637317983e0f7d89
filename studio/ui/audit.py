"""The audit log: one JSON line for every job that changes something, every login and every refusal."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from studio.errors import reason_of
from studio.home import home
from studio.ui.who import Requester

MAX_BYTES = 5_000_000  # bytes after which the log begins anew; the one before is kept
MAX_ARGUMENT_CHARS = 120  # characters of an argument

_lock = threading.Lock()
_reported: set[str] = set()


def path() -> Path:
    """The log: audit.jsonl in the home."""
    return home() / "audit.jsonl"


def write(requester: Requester, what: str, values: tuple[Any, ...] = (), outcome: str = "done") -> None:
    """Append one line {at, who, from, what, with, outcome}. A full disk never stops the job; it is reported once."""
    line = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "who": requester.role or "nobody",
        "from": requester.address,
        "what": what,
        "with": [_short(value) for value in values],
        "outcome": outcome,
    }
    try:
        with _lock:
            _append(path(), json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        if str(error) not in _reported:
            _reported.add(str(error))
            print(f"The audit log cannot be written: {reason_of(error)}.", file=sys.stderr)


def _append(file: Path, line: str) -> None:
    """One write of a whole line, to a file that only its owner may read."""
    if file.exists() and file.stat().st_size > MAX_BYTES:
        os.replace(file, file.with_suffix(".1.jsonl"))
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, line.encode("utf-8", "replace"))
    finally:
        os.close(descriptor)


def _short(value: Any) -> str:
    """The beginning of an argument, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= MAX_ARGUMENT_CHARS else text[:MAX_ARGUMENT_CHARS] + "…"
