"""log.txt: the trainer's output, with progress bars collapsed and its size bounded."""

from __future__ import annotations

import os
import re
from pathlib import Path

HEAD, TAIL = 2_000_000, 8_000_000  # bytes kept of the beginning and of the end
LONGEST = 65_536  # bytes kept of an unfinished line
SECRET = re.compile(rb"hf_[A-Za-z0-9]{20,}")
ATTEMPT = "──── attempt "  # starts each attempt's part of the log


class Log:
    """A log whose middle, beyond HEAD + 2·TAIL bytes, gives way to a line that says so. Survives a full disk."""

    def __init__(self, path: Path):
        self.path = path
        self.lost = 0  # bytes not written because the disk was full
        self._line = b""
        self._descriptor = _open(path)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Write output. A carriage return restarts its line, as on a terminal."""
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > LONGEST:  # a progress bar, or a line without an end
            self._line = _visible(self._line)[-LONGEST // 2 :]
        if lines:
            self._put(b"".join(SECRET.sub(b"hf_***", _visible(line)) + b"\n" for line in lines))

    def _put(self, text: bytes) -> None:
        if self.lost:
            text = f"\n[… {self.lost} bytes of output lost: the disk was full …]\n".encode() + text
        try:
            written = os.write(self._descriptor, text)
        except OSError:  # disk full: output is lost, the run is not
            written = 0
        self.lost = self.lost + len(text) - written if written < len(text) else 0
        self._size += written
        if self._size > HEAD + 2 * TAIL:
            self._cut()

    def _cut(self) -> None:
        """Remove the middle. Without space for the copy, everything after the head is removed."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        try:
            with open(self.path, "rb") as file:
                head = file.read(HEAD)
                size = file.seek(0, os.SEEK_END)
                file.seek(size - TAIL)
                tail = file.read()
            temporary.write_bytes(
                head[: head.rfind(b"\n") + 1]
                + f"[… {size - HEAD - TAIL} bytes left out …]\n".encode()
                + tail[tail.find(b"\n") + 1 :]
            )
            os.replace(temporary, self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            os.ftruncate(self._descriptor, HEAD)
        os.close(self._descriptor)
        self._descriptor = _open(self.path)
        self._size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        if self._line:
            self._put(SECRET.sub(b"hf_***", _visible(self._line)) + b"\n")
            self._line = b""
        os.close(self._descriptor)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _visible(line: bytes) -> bytes:
    """What a terminal shows of a line: the part after its last carriage return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def tail(path: Path, size: int = 20_000) -> str:
    """The complete lines within the last `size` bytes, as text."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - size)
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return ""
    return (data[data.find(b"\n") + 1 :] if start else data).decode("utf-8", "replace")


def attempt_tail(path: Path) -> str:
    """The tail of the newest attempt's part of the log."""
    text = tail(path)
    return text.rpartition(ATTEMPT)[2].partition("\n")[2] if ATTEMPT in text else text


def follow(path: Path, position: tuple[int, int] = (0, 0)) -> tuple[bytes, tuple[int, int]]:
    """What was appended since `position` (inode, offset), and the new position; of a cut log, from its tail on."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            inode, start = position
            if inode and (inode != status.st_ino or status.st_size < start):
                start = max(0, status.st_size - TAIL // 8)
            file.seek(start)
            data = file.read()
            return data, (status.st_ino, start + len(data))
    except FileNotFoundError:
        return b"", position
