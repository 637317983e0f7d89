"""A run's log.txt by offset: what the page's log view asks for."""

from __future__ import annotations

import os
from typing import Any

from studio.json_text import whole_number
from studio.run import Run

LOG_BYTES = 64_000  # bytes of log in an answer
MAX_BEHIND = 4 * LOG_BYTES  # a page further behind than this goes on at the log's end


def since(run_: Run, question: dict[str, Any]) -> dict[str, Any]:
    """Bytes of log.txt from an offset, as text of whole lines. {file, at} -> {file, at, text, skipped, more}.

    `file` changes when the log was cut or replaced; then, and at first, the answer begins LOG bytes before the end.
    """
    try:
        with open(run_.log, "rb") as file:
            found = os.fstat(file.fileno())
            at = whole_number(question.get("at"))
            same = question.get("file") == found.st_ino and at <= found.st_size and found.st_size - at <= MAX_BEHIND
            if not same:
                at = max(0, found.st_size - LOG_BYTES)
            file.seek(at)
            data = file.read(LOG_BYTES)
    except FileNotFoundError:
        return {"file": 0, "at": 0, "text": "", "fresh": True, "skipped": 0, "more": False, "size": 0}
    head = data.find(b"\n") + 1 if not same and at else 0
    end = data.rfind(b"\n") + 1 or (len(data) if len(data) == LOG_BYTES else 0)
    return {
        "file": found.st_ino,
        "at": at + end,
        "text": data[head:end].decode("utf-8", "replace"),
        "fresh": not same,
        "skipped": at + head if not same else 0,
        "more": at + end < found.st_size and end > 0,
        "size": found.st_size,
    }
