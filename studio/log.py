"""log.txt: the trainer's output as it came, progress bars collapsed, bounded in size."""

from __future__ import annotations

import os
import re
from pathlib import Path

HEAD, TAIL = 2_000_000, 8_000_000  # bytes kept of the beginning and of the end
SECRET = re.compile(rb"hf_[A-Za-z0-9]{20,}")


class Log:
    """Append-only while small; past HEAD + 2·TAIL the middle is cut out and a line says so."""

    def __init__(self, path: Path):
        self.path, self._file, self._line = path, open(path, "ab"), b""

    def write(self, data: bytes) -> None:
        """Take output as it comes. A carriage return begins its line anew, as on a terminal."""
        *whole, self._line = (self._line + data).split(b"\n")
        for line in whole:
            self._put(line)
        self._line = self._line.rpartition(b"\r")[2][-10_000:] if len(self._line) > 65536 else self._line
        self._file.flush()
        if self._file.tell() > HEAD + 2 * TAIL:
            self._cut()

    def _put(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        try:
            self._file.write(SECRET.sub(b"hf_***", shown) + b"\n")
        except OSError:  # disk full: output is lost, the run is not
            pass

    def _cut(self) -> None:
        self._file.close()
        size = self.path.stat().st_size
        with open(self.path, "rb") as file:
            head = file.read(HEAD)
            file.seek(size - TAIL)
            tail = file.read()
        temporary = self.path.with_suffix(".tmp")
        temporary.write_bytes(head[: head.rfind(b"\n") + 1] + f"[… {size - HEAD - TAIL} bytes left out …]\n".encode()
                              + tail[tail.find(b"\n") + 1:])
        os.replace(temporary, self.path)
        self._file = open(self.path, "ab")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line:
            self._put(self._line)
        self._file.close()


def tail(path: Path, size: int = 20_000) -> str:
    """The last `size` bytes as text, whole lines."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - size)
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return ""
    return (data[data.find(b"\n") + 1:] if start else data).decode("utf-8", "replace")
