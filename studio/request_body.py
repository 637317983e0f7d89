"""The body of an HTTP request, bounded in bytes and in time: a server's memory and connections are not its clients'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

SLOWEST = 30.0  # seconds from its first byte to its last


class BodyError(ValueError):
    """The body is refused; `status` is HTTP's: 413 too long, 408 too slow."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


async def gather(chunks: AsyncIterable[bytes], most: int, seconds: float | None = None) -> bytes:
    """All bytes of a stream. Raises BodyError beyond `most` bytes, or where they take longer than `seconds`."""
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST if seconds is None else seconds):
            async for chunk in chunks:
                body += chunk
                if len(body) > most:
                    raise BodyError(f"it is longer than {most >> 20} MiB", 413)
    except TimeoutError:
        raise BodyError("it did not arrive in time", 408) from None
    return bytes(body)
