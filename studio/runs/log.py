"""log.txt: the trainer's output as it came, progress bars collapsed, bounded in size."""

from __future__ import annotations

import os
import re
from pathlib import Path

HEAD, TAIL = 2_000_000, 8_000_000  # bytes kept of the beginning and of the end
LONGEST = 65_536  # bytes of a line kept while its end has not come
SECRET = re.compile(rb"hf_[A-Za-z0-9]{20,}")
ATTEMPT = "──── attempt "  # begins each attempt's part of the log


class Log:
    """Append-only while small; past HEAD + 2·TAIL the middle is cut out and a line says so. Never raises for a full disk."""

    def __init__(self, path: Path):
        self.path, self.lost, self._line = path, 0, b""
        self._descriptor = _open(path)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Take output as it comes. A carriage return begins its line anew, as on a terminal."""
        *whole, self._line = (self._line + data).split(b"\n")
        if len(self._line) > LONGEST:  # a bar that never ends its line, or a line without end
            self._line = _shown(self._line)[-LONGEST // 2 :]
        if whole:
            self._put(b"".join(SECRET.sub(b"hf_***", _shown(line)) + b"\n" for line in whole))

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
        """Leave out the middle. With no room for the copy, everything behind the head goes."""
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
            self._put(SECRET.sub(b"hf_***", _shown(self._line)) + b"\n")
            self._line = b""
        os.close(self._descriptor)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _shown(line: bytes) -> bytes:
    """What a terminal would show of a line: what follows its last carriage return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


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
    return (data[data.find(b"\n") + 1 :] if start else data).decode("utf-8", "replace")


def latest(path: Path, size: int = 20_000) -> str:
    """The tail of the newest attempt alone: an older attempt's error is not this one's."""
    text = tail(path, size)
    return text.rpartition(ATTEMPT)[2].partition("\n")[2] if ATTEMPT in text else text


def follow(path: Path, place: tuple[int, int] = (0, 0)) -> tuple[bytes, tuple[int, int]]:
    """What was added since `place` (the file's inode and a byte), and the new place. After a cut it goes on at the new end's tail."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            inode, start = place
            if inode and (inode != status.st_ino or status.st_size < start):
                start = max(0, status.st_size - TAIL // 8)
            file.seek(start)
            data = file.read()
            return data, (status.st_ino, start + len(data))
    except FileNotFoundError:
        return b"", place
