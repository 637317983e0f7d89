"""Compressed files: gzip, bzip2, xz and zstd, detected by their first bytes and decompressed while reading."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, Any

MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what reading a damaged one raises


def compression_of(head: bytes) -> str:
    """ "gz", "bz2", "xz", "zst", or "" for uncompressed data."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def open_decompressed(path: Path, how: str) -> IO[bytes]:
    """The file's bytes, unpacked. Reading a damaged file raises one of DECOMPRESSION_ERRORS."""
    if how == "gz":
        return gzip.open(path)  # type: ignore[return-value]
    if how == "bz2":
        return bz2.open(path)  # type: ignore[return-value]
    if how == "xz":
        return lzma.open(path)  # type: ignore[return-value]
    if how == "zst":
        return io.BufferedReader(_Arrow(path), 1 << 20)  # type: ignore[return-value]
    return open(path, "rb", buffering=1 << 20)


class _Arrow(io.RawIOBase):
    """zstd, which Arrow brings along and Python before 3.14 does not."""

    def __init__(self, path: Path):
        import pyarrow as pa

        self.stream = pa.input_stream(str(path), compression="zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()
