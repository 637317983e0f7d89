"""Compressed files: gzip, bzip2, xz and zstd, detected by their first bytes and decompressed while reading."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO

MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what reading a damaged one raises


def compression_of(head: bytes) -> str:
    """ "gz", "bz2", "xz", "zst", or "" for uncompressed data."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def open_decompressed(path: Path, how: str) -> IO[bytes]:
    """The file's bytes, unpacked. Reading a damaged file raises one of DECOMPRESSION_ERRORS."""
    if how == "zst":  # which Arrow brings along, and Python before 3.14 does not
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20)  # type: ignore[return-value]
    if how:
        return {"gz": gzip, "bz2": bz2, "xz": lzma}[how].open(path)  # type: ignore[return-value]
    return open(path, "rb", buffering=1 << 20)
